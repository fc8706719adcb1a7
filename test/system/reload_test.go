package system

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/rig"
)

// TestGroupTakenOutByReload: sessions in a group that a reload removes go on, and end like
// any other. A reload that would give an address in use to another group is refused.
func TestGroupTakenOutByReload(t *testing.T) {
	const (
		def  = "  - {name: default, inside: [100.64.0.0/11], outside: [198.51.100.0/28], hold: 2s}\n"
		east = "  - {name: east, inside: [100.96.0.0/11], outside: [198.51.100.16/28], hold: 2s}\n"
		west = "  - {name: west, inside: [100.96.0.0/11], outside: [192.0.2.0/28], hold: 2s}\n"
	)
	eve, mallory := netip.MustParseAddr("100.96.0.1"), netip.MustParseAddr("100.96.0.2")
	w := start(t, rig.Options{Lab: netlab.Options{
		Subscribers: []netip.Addr{alice, eve, mallory},
		Pool:        []netip.Prefix{netip.MustParsePrefix("198.51.100.0/27")},
	}})
	w.reload(def+east, true)
	w.online(sessionOf(alice, "a-1"))
	w.online(sessionOf(eve, "e-1"))
	w.online(sessionOf(mallory, "m-1"))
	fa, fe, fm := w.flow(alice), w.flow(eve), w.flow(mallory)

	w.reload(def+west, false)
	w.reload(def, true)
	w.passes(fa, "alice")
	w.passes(fe, "eve, whose group was taken out")
	w.must(w.Offline(w.ctx, sessionOf(eve, "e-1")))
	w.gone(eve)
	w.dead(fe, "eve, stopped")
	w.passes(fm, "mallory")
	_, err := w.Redis.CLI(w.ctx, "DEL", "sessiond:{east}:sub:"+mallory.String())
	w.must(err)
	w.gone(mallory)
	w.ctl("reconcile") // still compares all groups

	w.reload(def+west, true)
	w.online(sessionOf(eve, "e-2"))
	w.passes(fa, "alice, in the end")
}

func (w *world) reload(groups string, want bool) {
	w.t.Helper()
	taken, err := w.Daemon.Reload(w.ctx, func(config string) string {
		return config[:strings.Index(config, "groups:")] + "groups:\n" + groups
	})
	w.must(err)
	if taken != want {
		w.t.Fatalf("reload taken: %t, want %t", taken, want)
	}
}

// TestStopsWhileRedisHangs_I9: SIGTERM ends sessiond soon, with success, although Redis
// keeps its connections open and answers nothing; NAT stays in place.
func TestStopsWhileRedisHangs_I9(t *testing.T) {
	w := start(t, rig.Options{})
	w.online(sessionOf(alice, "a-1"))
	f := w.flow(alice)
	w.must(w.Redis.Hang())
	w.stopsWithin(5 * time.Second) // now there are reads that never return
	w.passes(f, "alice, sessiond gone")
}

// stopsWithin stops sessiond once it has noticed that Redis hangs.
func (w *world) stopsWithin(most time.Duration) {
	w.t.Helper()
	w.soon(20*time.Second, func(ctx context.Context) error {
		return w.Until(ctx, "sessiond to notice", func() (bool, error) {
			code, _, err := w.Daemon.Get(ctx, "/readyz")
			return code != 200, err
		})
	})
	began := time.Now()
	code, err := w.Daemon.Stop()
	w.must(err)
	if took := time.Since(began); code != 0 || took > most {
		w.t.Errorf("exit code %d after %v, want 0 within %v", code, took, most)
	}
}

// TestStopsBesideRequestsWhileRedisHangs_I9: the same, with accounting and calls under way that
// Redis does not answer, and many groups: before the ten seconds after which container engines
// kill.
func TestStopsBesideRequestsWhileRedisHangs_I9(t *testing.T) {
	var groups []string
	for i := range 7 {
		groups = append(groups, fmt.Sprintf("name: g%d, inside: [10.%d.0.0/16], outside: [198.51.100.%d/32]", i, i, 16+i))
	}
	w := start(t, rig.Options{Groups: groups})
	w.online(sessionOf(alice, "a-1"))
	f := w.flow(alice)
	w.must(w.Redis.Hang())
	ctx, cancel := context.WithCancel(w.ctx)
	var callers sync.WaitGroup
	defer callers.Wait()
	defer cancel()
	for i := range 4 {
		callers.Go(func() {
			for ctx.Err() == nil {
				_ = w.Offline(ctx, sessionOf(alice, fmt.Sprint("b-", i)))
			}
		})
		callers.Go(func() {
			for ctx.Err() == nil {
				_, _ = w.Daemon.Ctl(ctx, "settings", "set", "subscriber_session_removal=off")
				_, _ = w.Daemon.Ctl(ctx, "subscriber", "delete", alice.String(), "--yes")
			}
		})
	}
	w.stopsWithin(8 * time.Second)
	w.passes(f, "alice, sessiond gone")
}
