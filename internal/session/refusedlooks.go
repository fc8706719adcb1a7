package session

import (
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/fifo"
)

// refusedLooks bound the looks at subscribers that use most of their ports and get no further
// block, or for whom an executor works: each rests after one, and all have a share of the
// time. Who is due earlier waits in a list. One goroutine uses it.
type refusedLooks struct {
	rests   map[netip.Addr]time.Time // until when, see refusedRest
	pause   time.Time                // until when nobody of the list is looked at, see refusedShare
	waiting fifo.Queue[netip.Addr]
	waits   map[netip.Addr]struct{} // those of waiting
	timer   *time.Timer
}

func newRefusedLooks() *refusedLooks {
	return &refusedLooks{rests: map[netip.Addr]time.Time{}, waits: map[netip.Addr]struct{}{}, timer: time.NewTimer(time.Hour)}
}

// wait reports whether a subscriber is to be looked at later, and puts it into the list then. One
// that has as many blocks as its group allows, or was refused one a moment ago, takes its turn.
func (l *refusedLooks) wait(inside netip.Addr, most bool) bool {
	now := time.Now()
	rest, refused := l.rests[inside]
	if !most && !refused || l.waiting.Len() == 0 && !now.Before(rest) && !now.Before(l.pause) {
		return false
	}
	l.push(inside)
	return true
}

// rest has a subscriber looked at once it has rested.
func (l *refusedLooks) rest(inside netip.Addr) {
	l.rests[inside] = time.Now().Add(refusedRest)
	l.push(inside)
}

func (l *refusedLooks) push(inside netip.Addr) {
	if _, waits := l.waits[inside]; !waits {
		l.waiting.Push(inside)
		l.waits[inside] = struct{}{}
	}
}

// due receives when the first of the list is due; it is nil for an empty list.
func (l *refusedLooks) due() <-chan time.Time {
	if l.waiting.Len() == 0 {
		return nil
	}
	at := l.rests[*l.waiting.Front()]
	if at.Before(l.pause) {
		at = l.pause
	}
	l.timer.Reset(time.Until(at))
	return l.timer.C
}

// next takes the first of the list, which must have one.
func (l *refusedLooks) next() netip.Addr {
	inside := l.waiting.Pop()
	delete(l.waits, inside)
	return inside
}

// looked notes a look at a subscriber that took so long.
func (l *refusedLooks) looked(inside netip.Addr, took time.Duration) {
	now := time.Now()
	l.rests[inside], l.pause = now.Add(refusedRest), now.Add((refusedShare-1)*took)
}

// forget drops the rests that are over.
func (l *refusedLooks) forget() {
	now := time.Now()
	for inside, rest := range l.rests {
		if rest.Before(now) {
			delete(l.rests, inside)
		}
	}
}
