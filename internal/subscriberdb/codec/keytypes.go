package codec

// TypedKey is a key that sessiond writes, and the type that it gives it, as the command
// TYPE tells it.
type TypedKey struct{ Name, Kind string }

// OwnKeys are the keys of a group that sessiond makes anew by itself. Those of records and
// sessions are looked at when they are read, and the feed and the hash of online addresses
// by a probe: without them the group cannot go on.
func OwnKeys(group string) []TypedKey {
	keys := []TypedKey{
		{ReadersKey(group), "hash"}, {RestartsKey(group), "set"}, {MarkerKey(group), "string"},
		{OwnerKey(group), "string"}, {ServedKey(group), "string"}, {OldBindingsKey(group), "hash"},
	}
	for part := range BindingParts {
		keys = append(keys, TypedKey{BindingsKey(group, uint8(part)), "hash"})
	}
	return keys
}

// SharedKeys are those of no group.
func SharedKeys() []TypedKey {
	return []TypedKey{{GroupsKey, "set"}, {SettingsKey, "hash"}, {NASesKey, "hash"}, {RefusedKey, "hash"}}
}
