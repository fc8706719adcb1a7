package radiusacct_test

import (
	"errors"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/radiusacct"
)

// unanswered sends a Status-Server and checks that it is not answered before a later
// accounting request.
func unanswered(t *testing.T, n *nas, id byte) {
	t.Helper()
	n.send(statusServer(id, secret))
	n.ask(startRequest(id+1, "after"), secret)
}

func TestStatusServerSwitchedOff_ACCT19(t *testing.T) {
	t.Run("for all", func(t *testing.T) {
		l := start(t, func(o *radiusacct.Options) { o.IgnoreStatusServer = true })
		unanswered(t, newNAS(t, "127.0.0.2", l.addr), 1)
		l.observer.wait(t, "a/status_server/unknown_type", 1)
	})
	t.Run("for one client", func(t *testing.T) {
		l := start(t, func(o *radiusacct.Options) {
			quiet := clientA()
			quiet.Name, quiet.Prefix, quiet.IgnoreStatusServer = "quiet", netip.MustParsePrefix("127.0.0.5/32"), true
			o.Clients = append(o.Clients, quiet)
		})
		unanswered(t, newNAS(t, "127.0.0.5", l.addr), 1)
		l.observer.wait(t, "quiet/status_server/unknown_type", 1)
		newNAS(t, "127.0.0.2", l.addr).ask(statusServer(1, secret), secret)
	})
}

// TestStatusServerRate_ACCT19 counts the Status-Server answered in one second, and checks
// that neither forgeries nor those of another client use up the rate.
func TestStatusServerRate_ACCT19(t *testing.T) {
	frozen := time.Now()
	var second atomic.Int64
	l := start(t, func(o *radiusacct.Options) {
		o.StatusRate = 3
		o.Now = func() time.Time { return frozen.Add(time.Duration(second.Load()) * time.Second) }
	})
	n := newNAS(t, "127.0.0.2", l.addr)
	for id := range byte(20) {
		n.send(statusServer(id, "forged"))
	}
	for id := range byte(10) {
		n.send(statusServer(id, secret))
	}
	l.observer.wait(t, "a/status_server/dropped", 7)
	for range 3 {
		n.receive()
	}
	newNAS(t, "127.0.0.9", l.addr).ask(statusServer(1, "secret-of-b"), "secret-of-b")
	n.ask(startRequest(1, "s"), secret) // accounting has no such limit
	second.Add(1)
	n.ask(statusServer(11, secret), secret)
	if got := l.observer.count("a/status_server/ok"); got != 4 {
		t.Errorf("%d answered, want 4", got)
	}
}

func TestStatusServerWithoutDatabase_ACCT19(t *testing.T) {
	var down atomic.Bool
	l := start(t, func(o *radiusacct.Options) {
		o.Healthy = func() error {
			if down.Load() {
				return errors.New("database is gone")
			}
			return nil
		}
	})
	n := newNAS(t, "127.0.0.2", l.addr)
	n.ask(statusServer(1, secret), secret)
	down.Store(true)
	unanswered(t, n, 2)
	l.observer.wait(t, "a/status_server/store_failed", 1)
	down.Store(false)
	n.ask(statusServer(4, secret), secret)
}
