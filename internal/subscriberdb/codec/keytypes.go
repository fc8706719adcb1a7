package codec

// TypedKey is a key that sessiond writes, and its type as named by the command TYPE.
type TypedKey struct{ Name, Kind string }

// OwnKeys returns the keys of a group that sessiond recreates by itself. It has no keys of
// records and sessions, whose types are checked when they are read, and neither the feed
// nor the hash of online addresses, which a probe checks: without those two the group
// cannot be served.
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

// SharedKeys returns the keys that belong to no group.
func SharedKeys() []TypedKey {
	return []TypedKey{{GroupsKey, "set"}, {SettingsKey, "hash"}, {NASesKey, "hash"}, {RefusedKey, "hash"}}
}
