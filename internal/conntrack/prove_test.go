package conntrack_test

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/conntrack"
	"github.com/sessiond/sessiond/internal/conntrack/conntracktest"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/testenv"
)

// mustProve deletes one address and checks the proof against conntrack(8).
func (l *lab) mustProve(t *testing.T, addr netip.Addr, deleted int) conntrack.Outcome {
	t.Helper()
	got, err := l.table.Delete(t.Context(), []netip.Addr{addr})
	o := got[addr]
	if err != nil || o.Deleted != deleted || o.Proof == nat.NotProved || o.At.IsZero() {
		t.Fatalf("Delete = %+v, %v; want %d deleted", o, err, deleted)
	}
	if n := l.listed(t, addr); n != 0 {
		t.Fatalf("%d entries of %v are left after the proof %v", n, addr, o.Proof)
	}
	return o
}

// sessions returns n entries of inside(i), with an outside address of its own.
func sessions(i, n int) []conntrack.Entry {
	return conntracktest.Many(inside(i), netip.AddrFrom4([4]byte{192, 88, byte(i >> 8), byte(i)}), n)
}

func (l *lab) wantProof(t *testing.T, addr netip.Addr, deleted int, want nat.Proof) {
	t.Helper()
	if o := l.mustProve(t, addr, deleted); o.Proof != want {
		t.Errorf("proved by %v, want %v", o.Proof, want)
	}
}

// Of the entries from before the listener some stand, some have ended without an event.
func TestIndexProvesEntriesFromBefore_I5(t *testing.T) {
	l := newLab(t, crowd(300)...)
	l.wantProof(t, inside(1), 100, nat.ProofIndex)
	conntracktest.In(t, l.name, "conntrack", "-D", "-s", inside(2).String())
	if n := l.table.Count(inside(2)); n != 100 {
		t.Errorf("Count = %d of entries that ended silently, want 100", n)
	}
	l.wantProof(t, inside(2), 0, nat.ProofIndex)
	if n := l.table.Stats().Passes; n != 0 {
		t.Errorf("%d table passes", n)
	}
}

// Events that have not been read when the delete begins are part of the proof.
func TestIndexProvesWhatIsStillUnread_I5(t *testing.T) {
	l := newLab(t)
	for round := range 20 {
		l.inject(t, crowd(2000)...)
		l.inject(t, sessions(100+round, 50)...)
		l.wantProof(t, inside(100+round), 50, nat.ProofIndex) // no wait for the count
		l.wantProof(t, inside(1), 100, nat.ProofIndex)
		conntracktest.In(t, l.name, "conntrack", "-F")
	}
}

// noise begins and ends entries of other addresses all the time, so that with a small
// buffer events are lost in every phase of a delete.
func (l *lab) noise(t *testing.T) (stop func()) {
	var done atomic.Bool
	var task sync.WaitGroup
	task.Go(func() {
		for others := sessions(5000, 60); !done.Load(); {
			conntracktest.Inject(t, l.path, others)
			conntracktest.Remove(t, l.path, others)
		}
	})
	return func() { done.Store(true); task.Wait() }
}

func TestProofSurvivesLostEvents_I5(t *testing.T) {
	l := newLabWith(t, conntrack.WithEventBuffer(conntrack.Options{}, 4096))
	stop := l.noise(t)
	defer stop()
	by := map[nat.Proof]int{}
	for round := range 40 {
		l.inject(t, sessions(round, 40)...)
		by[l.mustProve(t, inside(round), 40).Proof]++
	}
	if l.table.Stats().Overruns == 0 || by[nat.ProofTable] == 0 {
		t.Errorf("%+v, proofs %v: the test tests nothing", l.table.Stats(), by)
	}
	stop()
	testenv.Succeeds(t, func() error { // reads the events, among them perhaps another loss
		if o := l.mustProve(t, inside(98), 0); o.Proof != nat.ProofIndex {
			return fmt.Errorf("the index is not complete again: proved by %v", o.Proof)
		}
		return nil
	})
	l.inject(t, sessions(99, 1)...) // there is room for one event
	l.wantProof(t, inside(99), 1, nat.ProofIndex)
}

// The kernel sends no events, as an operator may configure it.
func TestIndexProvesNothingWithoutEvents_I5(t *testing.T) {
	l := newLabWith(t, conntrack.Options{Audit: time.Hour})
	l.inject(t, sessions(1, 4)...)
	conntracktest.In(t, l.name, "sysctl", "-qw", "net.netfilter.nf_conntrack_events=0")
	l.inject(t, sessions(2, 5)...)
	l.wantProof(t, inside(2), 5, nat.ProofTable)
	l.wantProof(t, inside(1), 4, nat.ProofTable)
	conntracktest.In(t, l.name, "sysctl", "-qw", "net.netfilter.nf_conntrack_events=2")
	l.wantProof(t, inside(3), 0, nat.ProofTable) // entries that began meanwhile are unknown
	l.table.Rebuild()
	testenv.Succeeds(t, func() error {
		if !l.table.Complete() {
			return errors.New("the index is not complete again")
		}
		return nil
	})
	l.wantProof(t, inside(3), 0, nat.ProofIndex)
}

// Events were off between two proofs; only an audit finds that out.
func TestAuditFindsEntriesWithoutEvents_I5(t *testing.T) {
	l := newLabWith(t, conntrack.Options{Audit: time.Hour})
	conntracktest.In(t, l.name, "sysctl", "-qw", "net.netfilter.nf_conntrack_events=0")
	l.inject(t, sessions(2, 5)...)
	conntracktest.In(t, l.name, "sysctl", "-qw", "net.netfilter.nf_conntrack_events=2")
	l.table.Rebuild()
	testenv.Succeeds(t, func() error {
		if n := l.table.Stats().Missed; n != 5 {
			return fmt.Errorf("%d entries are said to have been missed, want 5", n)
		}
		return nil
	})
	l.wantProof(t, inside(2), 5, nat.ProofTable)
}

// An address that is not inside is not in the index.
func TestIndexProvesNothingOutside(t *testing.T) {
	_, _, entries := mixed()
	l := newLab(t, entries...)
	l.wantProof(t, netip.MustParseAddr("192.0.2.1"), 1, nat.ProofTable)
}

// Entries of one address keep coming; the other addresses do not wait for it. By chance
// none may come in time, on a busy machine in many rounds.
func TestStubbornAddressHoldsNobodyUp_I5(t *testing.T) {
	l := newLab(t)
	defer l.keepComing(t)()
	stubborn := 0
	for round := 0; round < 20 || stubborn == 0 && round < 200; round++ {
		victim := inside(100 + round)
		l.inject(t, sessions(100+round, 30)...)
		got, err := l.table.Delete(t.Context(), []netip.Addr{inside(1), victim})
		var left *conntrack.RemainingError
		if err != nil && !errors.As(err, &left) {
			t.Fatal(err)
		}
		if err != nil && got[inside(1)].Proof == nat.NotProved {
			stubborn++
		}
		if o := got[victim]; o.Deleted != 30 || o.Proof != nat.ProofIndex || l.listed(t, victim) != 0 {
			t.Fatalf("%+v of the other address", o)
		}
	}
	if n := l.table.Stats().Passes; n != 0 || stubborn == 0 {
		t.Errorf("%d table passes, %d times stubborn", n, stubborn)
	}
}

// The kernel refuses a marker while the queue is full, so that none hides a loss.
func TestMarkerIsRefusedWhileEventsAreLost(t *testing.T) {
	testenv.Require(t, testenv.Root|testenv.Conntrack)
	name, path := conntracktest.Namespace(t)
	table, err := conntrack.Open(conntrack.WithEventBuffer(
		conntrack.Options{NetNS: name, Inside: []netip.Prefix{insideNet}}, 4096))
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	if err := table.Join(); err != nil {
		t.Fatal(err)
	}
	if err := table.Mark(); err != nil {
		t.Fatalf("into the empty queue: %v", err)
	}
	conntracktest.Inject(t, path, crowd(1000))
	if err := table.Mark(); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("into the full queue: %v", err)
	}
	if _, err := table.Drain(); !errors.Is(err, unix.ENOBUFS) {
		t.Errorf("the first read after the loss: %v", err)
	}
	if _, err := table.Drain(); err != nil {
		t.Error(err)
	}
	if err := table.Mark(); err != nil {
		t.Errorf("into the empty queue again: %v", err)
	}
}
