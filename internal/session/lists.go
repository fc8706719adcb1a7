package session

import (
	"iter"
	"net/netip"
	"slices"

	"github.com/sessiond/sessiond/internal/conntrack"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lifecycle"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/walk"
)

// looksPerCall bounds the items that one call of a list examines when no index
// covers its filter: 10 ms of work. Then the call ends with the items found so
// far, and with the key to continue after.
const looksPerCall = 50_000

// viewsAtOnce is the number of views made before the lock is yielded: 0.1 ms of
// work.
const viewsAtOnce = 64

// onlineRLocked yields, by group and inside address, the slots after a key that
// may be online and match the filter. It yields the lock at intervals: a
// subscriber that is online throughout is yielded once.
func (v *Backend) onlineRLocked(f *inspect.SubscriberFilter, after subscriber.Key) iter.Seq2[subscriber.Key, *lifecycle.Slot] {
	online := v.shared.life.Online()
	groups := online.Groups(f.Group, after.Group)
	talking, few := talkingRLocked(v, f)
	return v.slotsRLocked(groups, f.Inside, after, func(group string, first netip.Addr) iter.Seq[netip.Addr] {
		if few {
			return valuesFrom(talking, first)
		}
		if few, ok := v.fewOnlineRLocked(group, f); ok {
			return valuesFrom(few, first)
		}
		if f.State == inspect.SubscriberRemovalHeld {
			return online.HeldFrom(group, first)
		}
		return online.From(group, f, first)
	})
}

func valuesFrom(list []netip.Addr, first netip.Addr) iter.Seq[netip.Addr] {
	i, _ := slices.BinarySearchFunc(list, first, netip.Addr.Compare)
	return slices.Values(list[i:])
}

func remoteOf(f *inspect.SubscriberFilter) conntrack.Remote {
	return conntrack.Remote{Prefix: f.Remote, Port: f.RemotePort}
}

// talkingRLocked returns, in order, the addresses that have a session with the remote host of the
// filter, if they are few. Otherwise, or without one, it returns false. It yields the lock while it
// looks at all sessions.
func talkingRLocked(v *Backend, f *inspect.SubscriberFilter) (list []netip.Addr, few bool) {
	if !f.OfRemote() {
		return nil, false
	}
	v.shared.mu.RUnlock()
	defer v.shared.mu.RLock()
	list, few = v.kernel.Talking(remoteOf(f), fewBindings)
	slices.SortFunc(list, netip.Addr.Compare)
	return list, few
}

// fewOnlineRLocked returns, in order, the addresses of a group that may match the filter, if an
// index of the engine finds these alone and they are few. Otherwise it returns false.
func (v *Backend) fewOnlineRLocked(group string, f *inspect.SubscriberFilter) (few []netip.Addr, ok bool) {
	switch engine := v.shared.life.Engine(); {
	case f.Outside.IsValid():
		ok = engine.OutsideFew(group, f.Outside, fewBindings, func(b nat.Binding) {
			if b.State.Live() {
				few = append(few, b.Inside)
			}
		})
	case f.State == inspect.SubscriberPending:
		ok = engine.PendingFew(group, fewBindings, func(inside netip.Addr) { few = append(few, inside) })
	}
	slices.SortFunc(few, netip.Addr.Compare)
	return few, ok
}

// slotsRLocked is onlineRLocked for the addresses that index yields, in order,
// from a group's first address on.
func (v *Backend) slotsRLocked(groups []string, inside netip.Prefix, after subscriber.Key, index func(group string, first netip.Addr) iter.Seq[netip.Addr]) iter.Seq2[subscriber.Key, *lifecycle.Slot] {
	all := func(yield func(subscriber.Key, *lifecycle.Slot) bool) {
		for _, group := range groups {
			for a := range index(group, firstOf(inside, group, after)) {
				if inside.IsValid() && !inside.Contains(a) {
					break // addresses are in order, and began in the prefix
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

// firstOf returns the first address of a group that a list can contain, given
// the prefix of its filter, if any, and the key that it continues after. The
// zero address sorts before all.
func firstOf(inside netip.Prefix, group string, after subscriber.Key) netip.Addr {
	first := inside.Masked().Addr()
	if group == after.Group && after.Inside.IsValid() && !after.Inside.Less(first) {
		first = after.Inside.Next()
		if !first.IsValid() {
			first = netip.IPv6Unspecified() // follows the last of IPv4
		}
	}
	return first
}

// topN keeps the smallest limit items of all that are added, in order; of equal
// items the last.
type topN[T any] struct {
	limit   int
	compare func(a, b T) int
	kept    []T
}

// wants reports whether an item would be kept.
func (s *topN[T]) wants(x T) bool {
	n := len(s.kept)
	return n < s.limit || n > 0 && s.compare(x, s.kept[n-1]) <= 0
}

func (s *topN[T]) add(x T) {
	if !s.wants(x) {
		return
	}
	i, there := slices.BinarySearchFunc(s.kept, x, s.compare)
	if there {
		s.kept[i] = x
		return
	}
	s.kept = slices.Insert(s.kept, i, x)
	s.kept = s.kept[:min(len(s.kept), s.limit)]
}
