package session

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/clock"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// quickly waits no longer than readiness may lag behind the database's state.
func (w *world) quickly(what string, holds func() bool) {
	w.t.Helper()
	began := time.Now()
	w.until(what, holds)
	if took := time.Since(began); took > 2*time.Second {
		w.t.Errorf("%s took %v", what, took)
	}
}

// TestNotReadyWithoutWrites_I2: if the database cannot record accounting, the
// daemon is not ready and logs it once. It also logs the recovery once.
func TestNotReadyWithoutWrites_I2(t *testing.T) {
	for name, tt := range map[string]struct {
		says          string
		begin, finish func(w *world)
	}{
		"hangs": {"no answer",
			func(w *world) { w.server.Hang(w.t) }, func(w *world) { w.server.Resume(w.t) }},
		"is a replica": {"READONLY",
			func(w *world) { w.client.SlaveOf(context.Background(), "127.0.0.1", "1") },
			func(w *world) { w.client.SlaveOf(context.Background(), "NO", "ONE") }},
		"is full": {"OOM",
			func(w *world) { w.client.ConfigSet(context.Background(), "maxmemory", "1") },
			func(w *world) { w.client.ConfigSet(context.Background(), "maxmemory", "0") }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var book logBook
			w := newWorld(t, testGroup, func(w *world) { w.logs = &book })
			w.send(subscriber.EventStart, alice, "a", "1")
			w.awaitState(alice, nat.Active)
			for round := 1; round <= 2; round++ {
				if err := w.NotReady(); err != nil {
					t.Fatalf("not ready before: %v", err)
				}
				tt.begin(w)
				w.quickly("the daemon to be not ready", func() bool {
					err := w.NotReady()
					return err != nil && strings.Contains(err.Error(), tt.says)
				})
				if s, _ := w.Status(context.Background()); s.DatabaseUp {
					t.Error("the database counts as up")
				}
				held, stop := context.WithTimeout(context.Background(), 3*time.Second)
				for held.Err() == nil { // every periodic look fails meanwhile
					if err := w.NotReady(); err == nil {
						t.Error("ready for a moment")
					}
					_ = clock.Sleep(held, 50*time.Millisecond)
				}
				stop()
				tt.finish(w)
				w.quickly("the daemon to be ready", func() bool { return w.NotReady() == nil })
				w.until("it to be told", func() bool { return book.count("database can be used again") == round })
				if n := book.count("database cannot be used"); n != round {
					t.Errorf("round %d: told %d times", round, n)
				}
				if n := book.count("level=WARN") + book.count("level=ERROR"); n > 2*round {
					t.Errorf("round %d: %d lines of the log complain", round, n)
				}
			}
			w.check()
		})
	}
}

// failingStore is a database whose groups cannot be read until broken is
// closed.
type failingStore struct {
	Store
	broken chan struct{} // closed when they can be read
}

func (s *failingStore) Tail(ctx context.Context, group string) (string, error) {
	select {
	case <-s.broken:
		return s.Store.Tail(ctx, group)
	default:
		return "", errors.New("feed is no stream")
	}
}

// TestCauseOfNotRestored: readiness names the reason that a start does not
// finish, and the status says that the counts mean nothing meanwhile.
func TestCauseOfNotRestored(t *testing.T) {
	w := newWorld(t, testGroup)
	w.halt()
	failing := &failingStore{Store: w.db, broken: make(chan struct{})}
	m, err := New(Options{
		Store: failing, Kernel: w.nat, Groups: []lsn.GroupConfig{w.group}, Node: "test",
		Settings: someSettings, Observer: w.seen, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var task sync.WaitGroup
	task.Go(func() { _ = m.Run(ctx) })
	t.Cleanup(func() { cancel(); task.Wait() })
	w.until("the cause", func() bool {
		err := m.NotReady()
		return err != nil && strings.Contains(err.Error(), "group default: feed is no stream")
	})
	if s, err := m.Backend().Status(t.Context()); err != nil || !s.Groups[0].Restoring {
		t.Errorf("status %+v, %v", s.Groups, err)
	}
	close(failing.broken)
	w.until("the daemon to be ready", func() bool { return m.NotReady() == nil })
	if s, err := m.Backend().Status(t.Context()); err != nil || s.Groups[0].Restoring {
		t.Errorf("status %+v, %v, once ready", s.Groups, err)
	}
}

// TestStartBeforeDatabase_NAT30: a start with an empty database and a kernel
// that was never programmed allocates blocks at once.
func TestStartBeforeDatabase_NAT30(t *testing.T) {
	g := testGroup
	g.Hold = time.Hour
	w := newWorld(t, g)
	w.halt()
	if err := w.client.FlushAll(context.Background()).Err(); err != nil {
		t.Fatal(err)
	}
	w.boot()
	if s, _ := w.Status(context.Background()); s.Groups[0].Quarantined != 0 {
		t.Errorf("%d blocks in quarantine", s.Groups[0].Quarantined)
	}
	w.send(subscriber.EventStart, bob, "b", "2")
	w.awaitState(bob, nat.Active)
	w.check()
}

// TestQuarantineIsTold_NAT30: if the kernel was programmed before, a seemingly
// free block may have been in use a moment ago. So it is quarantined, and log
// and status give the reason.
func TestQuarantineIsTold_NAT30(t *testing.T) {
	g := testGroup
	g.Hold = time.Second
	var book logBook
	w := newWorld(t, g, func(w *world) { w.logs = &book })
	w.send(subscriber.EventStart, alice, "a", "1")
	w.awaitState(alice, nat.Active)
	w.send(subscriber.EventStop, alice, "a", "1")
	w.awaitState(alice, nat.Held)
	w.halt()
	if err := w.client.FlushAll(context.Background()).Err(); err != nil {
		t.Fatal(err)
	}
	before := time.Now()
	w.boot()
	status := func() inspect.GroupStatus {
		s, _ := w.Status(context.Background())
		return s.Groups[0]
	}
	pools, _ := w.Pools(context.Background())
	got := status()
	if got.Quarantined != pools[0].Total || pools[0].Held != pools[0].Total {
		t.Errorf("%d of %d blocks in quarantine, %d held", got.Quarantined, pools[0].Total, pools[0].Held)
	}
	if wait := got.QuarantinedUntil.Sub(before); wait < g.Hold || wait > g.Hold+10*time.Second {
		t.Errorf("until %v from the start", wait)
	}
	if n := book.count("free blocks wait for a hold"); n != 1 {
		t.Errorf("told %d times", n)
	}
	w.send(subscriber.EventStart, bob, "b", "2")
	w.awaitState(bob, nat.Active)
	if got := status(); got.Quarantined != 0 || !got.QuarantinedUntil.IsZero() {
		t.Errorf("%d still in quarantine, until %v", got.Quarantined, got.QuarantinedUntil)
	}
	w.check()
}
