package session

import (
	"iter"
	"net/netip"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lifecycle"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/walk"
)

// looksPerCall bounds how much one call of a list looks at, where what picks has no
// index of its own: 10 ms of work. Then the call ends with what it has found, and with
// the key to go on behind.
const looksPerCall = 50_000

// viewsAtOnce is how many views are made before others have the lock: 0.1 ms of work.
const viewsAtOnce = 64

// onlineRLocked yields, by group and inside address, the slots behind a key of all
// who are online and may match the filter. It lets others have the lock now and then:
// who is online throughout is yielded once.
func (v *Backend) onlineRLocked(f *inspect.SubscriberFilter, after subscriber.Key) iter.Seq2[subscriber.Key, *lifecycle.Slot] {
	groups := v.shared.life.Online().Groups(f.Group, after.Group)
	return v.slotsRLocked(groups, f.Inside, after, func(group string, first netip.Addr) iter.Seq[netip.Addr] {
		return v.shared.life.Online().From(group, f, first)
	})
}

// slotsRLocked is onlineRLocked for the addresses that index yields in their order, of
// a group from the first on.
func (v *Backend) slotsRLocked(groups []string, inside netip.Prefix, after subscriber.Key, index func(group string, first netip.Addr) iter.Seq[netip.Addr]) iter.Seq2[subscriber.Key, *lifecycle.Slot] {
	all := func(yield func(subscriber.Key, *lifecycle.Slot) bool) {
		for _, group := range groups {
			for a := range index(group, firstOf(inside, group, after)) {
				if inside.IsValid() && !inside.Contains(a) {
					break // they come in order, and began in the prefix
				}
				s := v.shared.life.Slot(a)
				if s == nil || s.Group() != group {
					continue // listed under the same hash, or gone
				}
				if !yield(subscriber.Key{Group: group, Inside: a}, s) {
					return
				}
			}
		}
	}
	return walk.By(viewsAtOnce, v.shared.mu.RLocker(), all)
}

// firstOf returns the first address of a group that a list behind a key can have, by
// the prefix that it is about, if any; the zero address is before all.
func firstOf(inside netip.Prefix, group string, after subscriber.Key) netip.Addr {
	first := inside.Masked().Addr()
	if group == after.Group && after.Inside.IsValid() && !after.Inside.Less(first) {
		first = after.Inside.Next()
		if !first.IsValid() {
			first = netip.IPv6Unspecified() // is next to the last of IPv4
		}
	}
	return first
}
