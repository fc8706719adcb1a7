package codec

import (
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
