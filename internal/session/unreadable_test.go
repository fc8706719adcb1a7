package session

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// logBook keeps what is logged.
type logBook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logBook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// count returns how often something was logged.
func (l *logBook) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), what)
}

// TestUnreadableMarker_I6: garbage in place of the marker ends nobody, is told in
// the log once, and so is that it is gone.
func TestUnreadableMarker_I6(t *testing.T) {
	var book logBook
	w := newWorld(t, testGroup, func(w *world) { w.logs = &book })
	w.send(subscriber.EventStart, alice, "a", "1")
	w.awaitState(alice, lsn.Active)
	const key = "sessiond:{default}:marker"
	ctx := context.Background()
	marker, err := w.client.Get(ctx, key).Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct{ value, says string }{
		{"garbage", "database cannot be used"}, {marker, "database can be used again"},
	} {
		if err := w.client.Set(ctx, key, step.value, 0).Err(); err != nil {
			t.Fatal(err)
		}
		w.until(step.says, func() bool { return book.count(step.says) == 1 })
	}
	w.awaitState(alice, lsn.Active)
	if n := book.count("database cannot be used"); n != 1 {
		t.Errorf("told %d times", n)
	}
	w.check()
}
