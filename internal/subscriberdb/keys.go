package subscriberdb

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// reserved is the group of sessions whose address belongs to no group.
const reserved = "_"

// A group name stands in a hash tag and in SCAN patterns, so it is plain.
var groupName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

const settingsKey = "sessiond:settings"

// groupsKey is the set of the groups that anybody serves or has to serve to the end.
const groupsKey = "sessiond:groups"

// groupKey is the key of something of one group. The braces make every key of a
// group hash to one slot of a Redis Cluster.
func groupKey(group, rest string) string { return "sessiond:{" + group + "}:" + rest }

func appendGroupKey(text []byte, group, rest string) []byte {
	return append(append(append(append(text, "sessiond:{"...), group...), "}:"...), rest...)
}

// recordKeyPrefix is what comes before the address in the key of a record.
func recordKeyPrefix(group string) string { return groupKey(group, "sub:") }

func recordKey(group string, inside netip.Addr) string {
	return string(appendRecordKey(make([]byte, 0, 128), group, inside))
}

func appendRecordKey(text []byte, group string, inside netip.Addr) []byte {
	return inside.AppendTo(appendGroupKey(text, group, "sub:"))
}

func recordPattern(group string) string { return recordKeyPrefix(group) + "*" }

// sessionKey holds what is remembered of one accounting session.
func sessionKey(group string, id subscriber.SessionID) string {
	return string(appendSessionKey(make([]byte, 0, 128), group, id))
}

func appendSessionKey(text []byte, group string, id subscriber.SessionID) []byte {
	return appendSessionRef(appendGroupKey(text, group, "sess:"), id)
}

// restartKey holds the newest restart of a NAS.
func restartKey(group string, id subscriber.SessionID) string {
	return groupKey(group, "nas:"+nasRef(id))
}

// restartsKey is the set of NASes whose restart has not been swept yet.
func restartsKey(group string) string { return groupKey(group, "restarts") }

// onlineKey is the hash of all inside addresses that have, or last had, a record
// whose end nobody has announced.
func onlineKey(group string) string { return groupKey(group, "online") }

func feedKey(group string) string    { return groupKey(group, "feed") }
func readersKey(group string) string { return groupKey(group, "readers") }
func markerKey(group string) string  { return groupKey(group, "marker") }

// bindingsKey is the hash of the bindings of one part of the outside addresses.
func bindingsKey(group string, part uint8) string {
	return string(strconv.AppendUint(appendGroupKey(make([]byte, 0, 128), group, "bindings:"), uint64(part), 10))
}

// oldBindingsKey is the hash of all bindings of a group, where earlier versions left
// them.
func oldBindingsKey(group string) string { return groupKey(group, "bindings") }

// probeKey is what a daemon writes to see whether it can.
func probeKey(group, node string) string { return groupKey(group, "probe:"+escape(node)) }

// ownerKey is the lease of the daemon that serves the group's NAT.
func ownerKey(group string) string { return groupKey(group, "owner") }

// servedKey is what the group's NAT is served as, with what drains of it.
func servedKey(group string) string { return groupKey(group, "served") }

// parseRecordKey is the reverse of recordKey.
func parseRecordKey(key string) (subscriber.Key, bool) {
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

// appendSessionRef writes a session's identity as one word.
func appendSessionRef(text []byte, id subscriber.SessionID) []byte {
	text = append(append(text, escape(id.Client)...), '/')
	text = append(append(text, escape(id.NAS)...), '/')
	text = append(text, escape(id.AcctSessionID)...)
	if id.Leg.IsValid() {
		text = append(append(text, '/'), escape(id.Leg.String())...)
	}
	return text
}

// nasRef writes the identity of a NAS as one word.
func nasRef(id subscriber.SessionID) string { return escape(id.Client) + "/" + escape(id.NAS) }

func parseSessionRef(ref string) (subscriber.SessionID, error) {
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

func parseNASRef(ref string) (subscriber.SessionID, error) { return parseSessionRef(ref + "/") }
