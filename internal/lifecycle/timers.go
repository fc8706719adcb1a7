package lifecycle

import (
	"container/heap"
	"math"
	"net/netip"
	"time"
)

// expiryGrace is added to a record's expiry before it is looked at, and is the
// distance of further looks while the database, whose clock decides, keeps it.
const expiryGrace = 250 * time.Millisecond

// timers tell when a record should have expired, or a grace time is over. An
// Interim only moves the expiry further away, so it costs nothing here: the entry
// comes up too early and is put back. An address has one entry, for what comes first.
type timers struct {
	due   dueHeap
	known map[[4]byte]int64 // when the valid entry of each address is due
}

// due is an entry. There is one for every subscriber, so it is small.
type due struct {
	at     int64 // nanoseconds since 1970
	inside [4]byte
}

func newTimers() timers { return timers{known: map[[4]byte]int64{}} }

// expire has the address looked at when its record should be gone, and reports whether
// that is earlier than anything else is due.
func (t *timers) expire(inside netip.Addr, expiry time.Time) (first bool) {
	return !expiry.IsZero() && t.look(inside, expiry.Add(expiryGrace))
}

// Farthest is the latest time that an entry can tell, in the year 2262.
var Farthest = time.Unix(0, math.MaxInt64)

// look has the address looked at when the time has come, and reports whether that is
// earlier than anything else is due. A record at an address that is not IPv4, or that
// lives for centuries, as a person may have written it, is not waited for.
func (t *timers) look(inside netip.Addr, at time.Time) (first bool) {
	if !inside.Is4() || at.After(Farthest) {
		return false
	}
	entry := due{at.UnixNano(), inside.As4()}
	if known, ok := t.known[entry.inside]; ok && entry.at >= known {
		return false
	}
	t.known[entry.inside] = entry.at
	heap.Push(&t.due, entry)
	return t.due[0] == entry
}

// pop returns the addresses that are due.
func (t *timers) pop(now time.Time) []netip.Addr {
	var addrs []netip.Addr
	for len(t.due) > 0 && t.due[0].at <= now.UnixNano() {
		d := heap.Pop(&t.due).(due)
		if t.known[d.inside] == d.at { // else it was replaced by an earlier one
			delete(t.known, d.inside)
			addrs = append(addrs, netip.AddrFrom4(d.inside))
		}
	}
	return addrs
}

// next is when the earliest address is due.
func (t *timers) next() (time.Time, bool) {
	if len(t.due) == 0 {
		return time.Time{}, false
	}
	return time.Unix(0, t.due[0].at), true
}

type dueHeap []due

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].at < h[j].at }
func (h dueHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *dueHeap) Push(x any)        { *h = append(*h, x.(due)) }
func (h *dueHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}
