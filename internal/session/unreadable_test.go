package session

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// logBook keeps the log.
type logBook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logBook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// count returns the number of occurrences of a text in the log.
func (l *logBook) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), what)
}

// TestUnreadableMarker_I6: garbage in place of the marker ends no subscriber.
// It counts as a lost marker: it is logged once, and a new marker is written.
func TestUnreadableMarker_I6(t *testing.T) {
	var book logBook
	w := newWorld(t, testGroup, func(w *world) { w.logs = &book })
	w.send(subscriber.EventStart, alice, "a", "1")
	w.awaitState(alice, nat.Active)
	const key = "sessiond:{default}:marker"
	ctx := context.Background()
	if err := w.client.Set(ctx, key, "garbage", 0).Err(); err != nil {
		t.Fatal(err)
	}
	w.until("a marker to be written", func() bool {
		marker, err := w.client.Get(ctx, key).Result()
		return err == nil && strings.Contains(marker, "epoch")
	})
	w.until("the database to be trusted", func() bool { return book.count("database rebuilt") == 1 })
	w.awaitState(alice, nat.Active)
	for _, line := range []string{"unusable data in Redis is left out", "database suspect"} {
		if n := book.count(line); n != 1 {
			t.Errorf("%q was told %d times", line, n)
		}
	}
	w.check()
}
