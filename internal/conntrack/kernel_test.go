package conntrack_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sessiond/sessiond/internal/conntrack"
	"github.com/sessiond/sessiond/internal/conntrack/conntracktest"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/testenv"
)

// The buffer holds a few events only, so the kernel drops most of them.
func TestIndexEqualsKernelAfterLostEvents(t *testing.T) {
	l := newLabWith(t, conntrack.WithEventBuffer(conntrack.Options{}, 4096))
	random := rand.New(rand.NewPCG(1, 2))
	port := uint16(1000)
	for range 6 {
		for range 5 {
			n := 300 + random.IntN(300)
			batch := conntracktest.Many(inside(random.IntN(4)), outside, n)
			for i := range batch {
				port++
				batch[i].Orig.SrcPort, batch[i].Reply.DstPort = port, port
			}
			l.inject(t, batch...)
		}
		victim := inside(random.IntN(4)).String()
		_ = conntracktest.In(t, l.name, "sh", "-c", "conntrack -D -s "+victim+" 2>&1 || true")
		for i := range 4 {
			l.waitCount(t, inside(i), l.listed(t, inside(i)))
		}
	}
	if l.table.Stats().Overruns == 0 {
		t.Error("no event was lost: the test tests nothing")
	}
}

func TestIndexEqualsKernelUnderRandomTraffic(t *testing.T) {
	l := newLab(t)
	random := rand.New(rand.NewPCG(3, 4))
	for step := range 60 {
		a, b := inside(random.IntN(5)), inside(5+random.IntN(5))
		port := uint16(1000 + 4*step)
		switch random.IntN(6) {
		case 0, 1:
			l.inject(t, conntracktest.Outbound(at(a, port), at(outside, port), at(remote, port)))
		case 2:
			l.inject(t, conntracktest.Inbound(at(b, port), at(outside, port), at(remote, port)))
		case 3:
			l.inject(t, conntracktest.Hairpin(at(a, port), at(outside, port), at(b, port+1), at(outside, port+1)))
		case 4:
			_ = conntracktest.In(t, l.name, "sh", "-c", "conntrack -D -s "+a.String()+" 2>&1 || true")
		case 5:
			if _, err := l.table.Delete(t.Context(), []netip.Addr{a, b}); err != nil {
				t.Fatal(err)
			}
			if n := l.listed(t, a) + l.listed(t, b); n != 0 {
				t.Fatalf("%d entries are left", n)
			}
		}
		if step%10 == 9 {
			for i := range 10 {
				l.waitCount(t, inside(i), l.listed(t, inside(i)))
			}
		}
	}
}

func TestIdleIsTold(t *testing.T) {
	a, b, entries := mixed()
	l := newLab(t)
	l.inject(t, entries...)
	l.waitCount(t, a, 4)
	conntracktest.In(t, l.name, "conntrack", "-D", "-s", b.String()) // one hairpin entry stays
	l.waitCount(t, b, 1)
	if _, err := l.table.Flush(t.Context(), []netip.Addr{a}); err != nil {
		t.Fatal(err)
	}
	told := map[netip.Addr]bool{}
	for len(told) < 2 {
		select {
		case addr := <-l.table.Idle():
			told[addr] = true
		case <-time.After(10 * time.Second):
			t.Fatalf("told idle: %v", told)
		}
	}
	if !told[a] || !told[b] {
		t.Errorf("told idle: %v", told)
	}
}

// Entries from before the listener end without an event.
func TestIdlersForgetsWhatEndedSilently_DEL11(t *testing.T) {
	a, b, entries := mixed()
	l := newLab(t, entries...)
	conntracktest.In(t, l.name, "conntrack", "-D", "-s", a.String())
	left := l.listed(t, a)
	if _, err := l.table.Idlers(t.Context(), []netip.Addr{a}); err != nil {
		t.Fatal(err)
	}
	if got := l.table.Count(a); got != left {
		t.Errorf("Count = %d after Idlers, want %d", got, left)
	}
	if l.table.Count(b) == 0 {
		t.Error("the neighbour was forgotten")
	}
}

// The kernel leaves timed-out entries to a slow sweep; Idlers drops them.
func TestIdlersEndsTimedOutEntries_DEL11(t *testing.T) {
	l := newLab(t)
	short := conntracktest.Outbound(at(inside(1), 1), at(outside, 1), at(remote, 1))
	short.Timeout = time.Second
	l.inject(t, short)
	l.waitCount(t, inside(1), 1)
	testenv.Succeeds(t, func() error {
		if _, err := l.table.Idlers(t.Context(), []netip.Addr{inside(1)}); err != nil {
			t.Fatal(err)
		}
		if n := l.table.Count(inside(1)); n != 0 {
			return fmt.Errorf("%d entries", n)
		}
		return nil
	})
	select {
	case addr := <-l.table.Idle():
		if addr != inside(1) {
			t.Errorf("%v is told idle", addr)
		}
	case <-time.After(10 * time.Second):
		t.Error("idle is not told")
	}
}

func TestDeleteEntryNeverHitsASuccessor(t *testing.T) {
	_, _, entries := mixed()
	l := newLab(t, entries...)
	for _, e := range dump(t, l.table) {
		successor := e
		successor.ID++
		if err := l.table.DeleteEntry(t.Context(), successor); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(dump(t, l.table)); n != len(entries) {
		t.Fatalf("%d entries after deletes of other incarnations, want %d", n, len(entries))
	}
	for i, e := range dump(t, l.table) {
		for range 2 { // the second time it is gone
			if err := l.table.DeleteEntry(t.Context(), e); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(dump(t, l.table)); n != len(entries)-i-1 {
			t.Fatalf("%d entries after delete %d", n, i+1)
		}
	}
}

func TestDumpEqualsConntrackTool(t *testing.T) {
	want := entries()
	l := newLab(t)
	for _, e := range want {
		l.inject(t, e)
	}
	for _, got := range dump(t, l.table) {
		found := false
		for _, e := range want {
			found = found || got.Orig == e.Orig && got.Reply == e.Reply && got.Zone == e.Zone &&
				got.TCPState == e.TCPState && got.Status&e.Status == e.Status
		}
		if !found {
			t.Errorf("nobody made %s: %+v", conntracktest.String(got), got)
		}
	}
	if n := len(dump(t, l.table)); n != len(want) {
		t.Errorf("%d entries, want %d", n, len(want))
	}
	stop := errors.New("enough")
	if err := l.table.Dump(t.Context(), func(conntrack.Entry) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("Dump = %v, want the callback's error", err)
	}
	if n := len(dump(t, l.table)); n != len(want) {
		t.Errorf("%d entries after a dump that was broken off", n)
	}
}

// Without an index a pass proves, and serves all calls that wait for one.
func TestManyDeletesShareTablePasses_DEL12(t *testing.T) {
	testenv.Require(t, testenv.Root|testenv.Conntrack)
	name, path := conntracktest.Namespace(t)
	table, err := conntrack.Open(conntrack.Options{NetNS: name, Inside: []netip.Prefix{insideNet}})
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	conntracktest.Inject(t, path, crowd(4000))
	var group errgroup.Group
	for i := range 40 {
		group.Go(func() error {
			got, err := table.Delete(t.Context(), []netip.Addr{inside(i + 1)})
			if o := got[inside(i+1)]; err == nil && (o.Deleted != 100 || o.Proof != nat.ProofTable) {
				err = fmt.Errorf("deleted %v", got)
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if n := len(dump(t, table)); n != 0 {
		t.Errorf("%d entries are left", n)
	}
	if n := table.Stats().Passes; n == 0 || n > 20 {
		t.Errorf("%d table passes for 40 deletes at once", n)
	}
}

func TestDeleteOfManyAddresses_DEL12(t *testing.T) {
	l := newLab(t, crowd(30_000)...)
	var victims []netip.Addr
	for i := range 150 {
		victims = append(victims, inside(2*i+1))
	}
	got, err := l.table.Delete(t.Context(), victims)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		addr := inside(i + 1)
		if deleted, asked := got[addr]; asked != (i%2 == 0) || asked && deleted.Deleted != 100 {
			t.Fatalf("%v: deleted %+v", addr, deleted)
		}
		if want := 100 * (i % 2); l.table.Count(addr) != want {
			t.Fatalf("Count(%v) = %d, want %d", addr, l.table.Count(addr), want)
		}
	}
	if n := len(dump(t, l.table)); n != 15_000 {
		t.Errorf("%d entries are left, want the neighbours' 15000", n)
	}
	if n := l.table.Stats().Passes; n != 0 {
		t.Errorf("%d table passes although the index is complete", n)
	}
}

// The address is not cut off, so new entries come as old ones go. A pass may by chance find
// none in between; then the test deletes again.
func TestDeleteGivesUpWithWhatIsLeft(t *testing.T) {
	l := newLab(t)
	stop := l.keepComing(t)
	testenv.Succeeds(t, func() error {
		_, err := l.table.Delete(t.Context(), []netip.Addr{inside(1)})
		var left *conntrack.RemainingError
		if !errors.As(err, &left) || left.Left[inside(1)] == 0 {
			return fmt.Errorf("Delete of an address that is not cut off = %v", err)
		}
		return nil
	})
	stop()
	if _, err := l.table.Delete(t.Context(), []netip.Addr{inside(1)}); err != nil {
		t.Errorf("Delete after the cut = %v", err)
	}
}

func TestAuditFindsWhatEndedSilently(t *testing.T) {
	a, _, entries := mixed()
	l := newLabWith(t, conntrack.Options{Audit: 20 * time.Millisecond}, entries...)
	conntracktest.In(t, l.name, "conntrack", "-F")
	l.waitCount(t, a, 0)
	if l.table.Stats().Stale == 0 {
		t.Error("nothing is said to have been stale")
	}
}

func TestSetInside(t *testing.T) {
	a, _, entries := mixed()
	l := newLab(t, entries...)
	foreign := netip.MustParseAddr("192.0.2.1")
	l.table.SetInside([]netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")})
	l.waitCount(t, foreign, 1)
	l.waitCount(t, a, 0)
	l.table.SetInside([]netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), insideNet})
	l.waitCount(t, a, 4)
	if l.table.Count(foreign) != 1 {
		t.Error("a prefix that stayed lost its count")
	}
}

func TestCallsEndWithTheirContext(t *testing.T) {
	l := newLab(t, crowd(1000)...)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.table.Delete(ctx, []netip.Addr{inside(1)}); !errors.Is(err, context.Canceled) {
		t.Errorf("Delete = %v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	err := l.table.Dump(ctx, func(conntrack.Entry) error { cancel(); return nil })
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("Dump = %v", err)
	}
	if n := len(dump(t, l.table)); n != 1000 {
		t.Errorf("%d entries", n)
	}
}

func TestNoThreadStaysInTheNamespace(t *testing.T) {
	l := newLab(t, crowd(1000)...)
	dump(t, l.table)
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	threads, _ := filepath.Glob("/proc/self/task/*/ns/net")
	for _, thread := range threads {
		if ns, err := os.Readlink(thread); err == nil && ns != own {
			t.Errorf("%s is in %s", thread, ns)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	for name, o := range map[string]conntrack.Options{
		"IPv6 prefix":       {Inside: []netip.Prefix{netip.MustParsePrefix("2001:db8::/32")}},
		"zero prefix":       {Inside: make([]netip.Prefix, 1)},
		"no such namespace": {NetNS: "sd-no-such-namespace"},
	} {
		if table, err := conntrack.Open(o); err == nil {
			t.Errorf("%s: no error", name)
			table.Close()
		}
	}
}

func TestDeleteRefusesIPv6(t *testing.T) {
	testenv.Require(t, testenv.Root)
	table, err := conntrack.Open(conntrack.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	if _, err := table.Delete(t.Context(), []netip.Addr{netip.MustParseAddr("2001:db8::1")}); err == nil {
		t.Error("no error")
	}
}
