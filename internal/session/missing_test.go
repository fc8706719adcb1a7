package session

import (
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// TestExpiredAreAskedForOnce: while the database does not answer, the queue must
// not grow with every look at the same expired record.
func TestExpiredAreAskedForOnce(t *testing.T) {
	w := newWorld(t, testGroup)
	w.halt() // nobody takes from the queue
	now := time.Now()
	s := &slot{}
	s.begin(subscriber.Record{Key: subscriber.Key{Group: testGroup.Name, Inside: alice}, ExpiresAt: now.Add(-time.Minute)})
	w.slots[alice] = s
	w.timers.expire(alice, s.record.ExpiresAt)
	for range 10 {
		now = now.Add(time.Second)
		w.lookExpired(now, w.timers.pop(now))
	}
	if n := len(w.missing.items); n != 1 {
		t.Fatalf("%d entries queued, want 1", n)
	}
	w.lookAgain(w.missing.items)
	if _, ok := w.timers.next(); !ok {
		t.Error("once the database was asked, nothing looks at the record again")
	}
}
