package reconcile

import (
	"context"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// TestExpiredAreAskedForOnce: while the database does not answer, repeated
// looks at an expired record must not make the queue grow.
func TestExpiredAreAskedForOnce(t *testing.T) {
	s := newScene(t)
	now := time.Now()
	r := subscriber.Record{Key: subscriber.Key{Group: s.group.Name, Inside: bob}, ExpiresAt: now.Add(-time.Minute)}
	packed := r.Pack()
	s.life.Stand(&packed, now)
	for range 10 {
		now = now.Add(time.Second)
		s.life.Tick(now)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // Take returns the queued keys, and does not wait
	waiting, _ := s.absent.missing.Dequeue(ctx, nil)
	if n := len(waiting); n != 1 {
		t.Fatalf("%d entries queued, want 1", n)
	}
	s.absent.lookAgain(waiting)
	switch at := s.life.NextDue(now); {
	case at.Equal(now.Add(time.Minute)):
		t.Error("once the database was asked, nothing looks at the record again")
	case at.Sub(now) > 5*time.Second || time.Until(at) < time.Second:
		t.Errorf("next look in %v: after a step of the clock everybody is looked at so often", time.Until(at))
	}
}
