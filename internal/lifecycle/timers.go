package lifecycle

import (
	"container/heap"
	"math"
	"net/netip"
	"time"
)

// expiryGrace is added to a record's expiry before it is looked up, because the
// database's clock decides.
const expiryGrace = 250 * time.Millisecond

// timers have the times at which records should have expired, and grace times
// end. An Interim only delays the expiry, so it costs nothing here: the entry
// is due too early, and is put back. An address has one entry, for its earliest
// time.
type timers struct {
	due   dueHeap
	known map[[4]byte]int64 // due time of the valid entry of each address
}

// due is an entry. There is one for every subscriber, so it is small.
type due struct {
	at     int64 // nanoseconds since 1970
	inside [4]byte
}

func newTimers() timers { return timers{known: map[[4]byte]int64{}} }

// expire sets the timer of the address for its record's expiry, and reports
// whether it is due before all others.
func (t *timers) expire(inside netip.Addr, expiry time.Time) (first bool) {
	return !expiry.IsZero() && t.look(inside, expiry.Add(expiryGrace))
}

// Farthest is the latest time that an entry can hold, in the year 2262.
var Farthest = time.Unix(0, math.MaxInt64)

// look sets the timer of the address, and reports whether it is due before all
// others. It ignores records at addresses that are not IPv4, and those that
// live for centuries, as a person may have written them.
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

// pop removes and returns the addresses that are due.
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

// next returns the earliest due time.
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
