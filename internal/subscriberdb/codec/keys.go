package codec

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// Reserved is the group of sessions whose address belongs to no group.
const Reserved = "_"

// A group name is part of a hash tag and of SCAN patterns, so it may have no special
// characters.
var groupName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// ValidGroupName reports whether a group may have the name: 1 to 64 letters, digits, ".",
// "_" and "-", and not Reserved.
func ValidGroupName(name string) bool { return groupName.MatchString(name) && name != Reserved }

// The keys that belong to no group.
const (
	SettingsKey = "sessiond:settings"    // hash of the live settings
	GroupsKey   = "sessiond:groups"      // set of the groups that are served or drained
	NASesKey    = "sessiond:nas"         // hash by NASRef; values in the form of NASLine
	RefusedKey  = "sessiond:nas:refused" // hash by NASRef and verdict ("<ref> <verdict>"): number of events

	// TrailsKey is the set of the audit trails that have entries. It is in the slot of the
	// trail of Reserved.
	TrailsKey = "{" + SettingsKey + "}:audit:trails"
)

// groupKey returns a key of one group. The braces make every key of a group hash to one
// slot of a Redis Cluster.
func groupKey(group, rest string) string { return "sessiond:{" + group + "}:" + rest }

func appendGroupKey(text []byte, group, rest string) []byte {
	return append(append(append(append(text, "sessiond:{"...), group...), "}:"...), rest...)
}

// RecordKeyPrefix returns the key of a record without its address.
func RecordKeyPrefix(group string) string { return groupKey(group, "sub:") }

// RecordPattern returns a pattern that matches the keys of all records of a group.
func RecordPattern(group string) string { return RecordKeyPrefix(group) + "*" }

// RecordKey returns the key of the hash with the record at an inside address.
func RecordKey(group string, inside netip.Addr) string {
	return string(AppendRecordKey(make([]byte, 0, 128), group, inside))
}

// AppendRecordKey appends the result of RecordKey.
func AppendRecordKey(text []byte, group string, inside netip.Addr) []byte {
	return inside.AppendTo(appendGroupKey(text, group, "sub:"))
}

// RecordKeys returns the keys of records, in one allocation.
func RecordKeys(keys []subscriber.Key) []string {
	text, ends := make([]byte, 0, 48*len(keys)), make([]int, len(keys))
	for i, key := range keys {
		text = AppendRecordKey(text, key.Group, key.Inside)
		ends[i] = len(text)
	}
	whole, from := string(text), 0
	names := make([]string, len(keys))
	for i, to := range ends {
		names[i], from = whole[from:to], to
	}
	return names
}

// ParseRecordKey parses the result of RecordKey.
func ParseRecordKey(key string) (subscriber.Key, bool) {
	rest, ok := strings.CutPrefix(key, "sessiond:{")
	if !ok {
		return subscriber.Key{}, false
	}
	group, rest, ok := strings.Cut(rest, "}:sub:")
	if !ok {
		return subscriber.Key{}, false
	}
	inside, err := netip.ParseAddr(rest)
	return subscriber.Key{Group: group, Inside: inside}, err == nil
}

// SessionKeyPrefix returns the key of a session's state without its reference.
func SessionKeyPrefix(group string) string { return groupKey(group, "sess:") }

// SessionKey returns the key of the string with the state of one accounting session.
func SessionKey(group string, id subscriber.SessionID) string {
	return string(AppendSessionKey(make([]byte, 0, 128), group, id))
}

// AppendSessionKey appends the result of SessionKey.
func AppendSessionKey(text []byte, group string, id subscriber.SessionID) []byte {
	return AppendSessionRef(appendGroupKey(text, group, "sess:"), id)
}

// RestartKey returns the key of the string with the newest restart of a NAS.
func RestartKey(group string, id subscriber.SessionID) string {
	return groupKey(group, "nas:"+NASRef(id))
}

// RestartsKey returns the key of the set of NASes whose restart has not been swept yet.
func RestartsKey(group string) string { return groupKey(group, "restarts") }

// OnlineKey returns the key of the hash of all inside addresses that have a record, or had
// one whose end was not announced yet.
func OnlineKey(group string) string { return groupKey(group, "online") }

// FeedKey returns the key of the stream with the changes of a group's records.
func FeedKey(group string) string { return groupKey(group, "feed") }

// ReadersKey returns the key of the hash of the readers of a group's feed.
func ReadersKey(group string) string { return groupKey(group, "readers") }

// MarkerKey returns the key of the string that proves that a group's data are complete.
func MarkerKey(group string) string { return groupKey(group, "marker") }

// BindingsKey returns the key of the hash with the bindings of one part of the outside
// addresses.
func BindingsKey(group string, part uint8) string {
	return string(strconv.AppendUint(appendGroupKey(make([]byte, 0, 128), group, "bindings:"), uint64(part), 10))
}

// OldBindingsKey returns the key of the hash in which earlier versions stored all bindings
// of a group.
func OldBindingsKey(group string) string { return groupKey(group, "bindings") }

// ProbeKey returns the key of the string that a daemon writes to find out whether writes
// succeed.
func ProbeKey(group, node string) string { return groupKey(group, "probe:"+Escape(node)) }

// OwnerKey returns the key of the string with the lease of the daemon that serves the
// group's NAT.
func OwnerKey(group string) string { return groupKey(group, "owner") }

// ServedKey returns the key of the string with the prefixes and settings of the group's
// NAT, drained ones included.
func ServedKey(group string) string { return groupKey(group, "served") }

// PoolsKey returns the key of the string with the changes of the group's outside prefixes
// at run time.
func PoolsKey(group string) string { return groupKey(group, "pools") }

// MappingsKey returns the key of the hash with the mappings of the group that outlive their
// sessions, by outside endpoint.
func MappingsKey(group string) string { return groupKey(group, "mappings") }

// NATLogKey returns the key of the stream with the log of a group's NAT.
func NATLogKey(group string) string { return groupKey(group, "natlog") }

// NATLogHeadKey returns the key of the hash with the epoch and the end of a NAT log.
func NATLogHeadKey(group string) string { return groupKey(group, "natlog:head") }

// NATLogBlocksKey returns the key of the hash of the blocks that are in service by a NAT log,
// by the places of their bindings.
func NATLogBlocksKey(group string) string { return groupKey(group, "natlog:blocks") }

// NATLogReadersKey returns the key of the hash of the readers of a NAT log.
func NATLogReadersKey(group string) string { return groupKey(group, "natlog:readers") }

// AuditKey returns the key of the stream with the audit trail of a group, or, for Reserved, of
// the changes that belong to no group. Each trail is in the slot of the data it is about: that
// of the group, and that of the settings.
func AuditKey(trail string) string {
	if trail == Reserved {
		return "{" + SettingsKey + "}:audit"
	}
	return groupKey(trail, "audit")
}

// AuditHeadKey returns the key of the hash with the ends of an audit trail.
func AuditHeadKey(trail string) string { return AuditKey(trail) + ":head" }

// AuditSinksKey returns the key of the hash with the positions of the sinks of an audit trail.
func AuditSinksKey(trail string) string { return AuditKey(trail) + ":sinks" }

// RequestKey returns the key of the hash with the outcome of a caller's request.
func RequestKey(actor, id string) string {
	return "sessiond:request:" + Escape(actor) + "/" + Escape(id)
}

// AppendSessionRef appends a session's identity as one word:
// <client>/<nas>/<Acct-Session-Id>, each escaped, and /<inside address> if several sessions
// share the identifier.
func AppendSessionRef(text []byte, id subscriber.SessionID) []byte {
	text = append(append(text, Escape(id.Client)...), '/')
	text = append(append(text, Escape(id.NAS)...), '/')
	text = append(text, Escape(id.AcctSessionID)...)
	if id.Leg.IsValid() {
		text = append(append(text, '/'), Escape(id.Leg.String())...)
	}
	return text
}

// ParseSessionRef parses the result of AppendSessionRef.
func ParseSessionRef(ref string) (subscriber.SessionID, error) {
	parts := strings.Split(ref, "/")
	if len(parts) != 3 && len(parts) != 4 {
		return subscriber.SessionID{}, fmt.Errorf("session reference %q", ref)
	}
	for i := range parts {
		var err error
		if parts[i], err = unescape(parts[i]); err != nil {
			return subscriber.SessionID{}, err
		}
	}
	id := subscriber.SessionID{Client: parts[0], NAS: parts[1], AcctSessionID: parts[2]}
	if len(parts) == 4 {
		var err error
		if id.Leg, err = netip.ParseAddr(parts[3]); err != nil {
			return subscriber.SessionID{}, fmt.Errorf("session reference %q: %w", ref, err)
		}
	}
	return id, nil
}

// NASRef returns the identity of a session's NAS as one word: <client>/<nas>, each escaped.
func NASRef(id subscriber.SessionID) string { return Escape(id.Client) + "/" + Escape(id.NAS) }

// ParseNASRef parses the result of NASRef; the session has no Acct-Session-Id.
func ParseNASRef(ref string) (subscriber.SessionID, error) { return ParseSessionRef(ref + "/") }

// TypedKey is a key that sessiond writes, and its type as named by the command TYPE.
type TypedKey struct{ Name, Kind string }

// OwnKeys returns the keys of a group that sessiond recreates by itself. It has no keys of
// records and sessions, whose types are checked when they are read, and neither the feed
// nor the hash of online addresses, which a probe checks: without those two the group
// cannot be served.
func OwnKeys(group string) []TypedKey {
	keys := []TypedKey{
		{ReadersKey(group), "hash"}, {RestartsKey(group), "set"}, {MarkerKey(group), "string"},
		{OwnerKey(group), "string"}, {ServedKey(group), "string"}, {PoolsKey(group), "string"},
		{OldBindingsKey(group), "hash"}, {MappingsKey(group), "hash"},
		{NATLogKey(group), "stream"}, {NATLogHeadKey(group), "hash"}, {NATLogBlocksKey(group), "hash"}, {NATLogReadersKey(group), "hash"},
	}
	for part := range BindingParts {
		keys = append(keys, TypedKey{BindingsKey(group, uint8(part)), "hash"})
	}
	return keys
}

// SharedKeys returns the keys that belong to no group.
func SharedKeys() []TypedKey {
	return []TypedKey{{GroupsKey, "set"}, {SettingsKey, "hash"}, {NASesKey, "hash"}, {RefusedKey, "hash"}, {TrailsKey, "set"}}
}

// Garbage is a kind of unusable data in Redis, named by its place. Garbage is left out,
// counted and logged, and blocks nothing else.
type Garbage string

// The kinds of garbage.
const (
	GarbageRestart Garbage = "restart" // a member of the set of restarts, or the restart of a NAS
	GarbageRecord  Garbage = "record"  // the key of a record is no hash
	GarbageSession Garbage = "session" // the key of a session's state is no string
	GarbageFeed    Garbage = "feed"    // an entry of the change feed, or its identifier
	GarbageKey     Garbage = "key"     // another of sessiond's own keys: of another type, or with an unreadable text
)

// GarbageKinds returns all kinds of garbage.
func GarbageKinds() []Garbage {
	return []Garbage{GarbageRestart, GarbageRecord, GarbageSession, GarbageFeed, GarbageKey}
}
