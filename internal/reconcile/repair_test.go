package reconcile

import (
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/guard"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lifecycle"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/reconcile/drift"
	"github.com/sessiond/sessiond/internal/subscriber"
)

var (
	alice = netip.MustParseAddr("100.64.0.10")
	bob   = netip.MustParseAddr("100.64.0.11")
)

// scene is a Reconciler over a life cycle in which alice is online. Its effects
// only record the requests.
type scene struct {
	*Reconciler
	group  *Group
	writes []lifecycle.Write
	opens  []lifecycle.Work
}

func newScene(t *testing.T) *scene {
	t.Helper()
	config := lsn.GroupConfig{
		Name: "default", Inside: []netip.Prefix{netip.MustParsePrefix("100.64.0.0/10")},
		Outside: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/28")}, FirstPort: 1024, LastPort: 65535, BlockSize: 512, Hold: time.Minute,
	}
	engine, err := lsn.New([]lsn.GroupConfig{config})
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{group: NewGroup(config, guard.Limits{})}
	life := lifecycle.New(engine, s, func(netip.Addr) int { return 0 })
	life.SetRemoval(inspect.RemovalOn)
	life.Groups().Add(s.group.Group)
	s.Reconciler = New(Options{Lock: &sync.RWMutex{}, Life: life, Kernel: emptyKernel{}, Observer: noObserver{}, Logger: slog.New(slog.DiscardHandler), Now: time.Now})
	r := aliceRecord("a", "1").Pack()
	life.Stand(&r, time.Now())
	for i := range s.writes {
		life.Stored(&s.writes[i], time.Now())
	}
	life.Programmed(s.opens[0].Slot, time.Now())
	s.writes, s.opens = nil, nil
	return s
}

func aliceRecord(user, id string) *subscriber.Record {
	return &subscriber.Record{
		Key: subscriber.Key{Group: "default", Inside: alice}, UserName: user,
		SessionID: subscriber.SessionID{Client: "bng1", NAS: "bng-1", AcctSessionID: id},
	}
}

func (s *scene) Store(w lifecycle.Write)                        { s.writes = append(s.writes, w) }
func (s *scene) Program(w lifecycle.Work)                       { s.opens = append(s.opens, w) }
func (*scene) Close(lifecycle.Work)                             {}
func (*scene) Reap(lifecycle.Work)                              {}
func (*scene) AskIdle(*lifecycle.Drain)                         {}
func (*scene) EndSessions(netip.Addr, nat.Forwards)             {}
func (*scene) MappingsEnded([]nat.Mapping)                      {}
func (*scene) AskVacant(*lifecycle.Part)                        {}
func (s *scene) LookUp(k subscriber.Key, why subscriber.Reason) { s.Reconciler.LookUp(k, why) }
func (*scene) WakeTimers()                                      {}
func (*scene) Online(string, int)                               {}
func (*scene) Emit(lifecycle.Transition)                        {}
func (*scene) Fault(what string, _ subscriber.Key, e error)     { panic(what + ": " + e.Error()) }

// emptyKernel has no entries.
type emptyKernel struct{ Kernel }

func (emptyKernel) EntryAt(netip.Addr) (nat.Entry, bool) { return nat.Entry{}, false }

type noObserver struct{}

func (noObserver) Drift(string)                       {}
func (noObserver) Looked(inspect.Look, time.Duration) {}

// TestOnePieceOfWork: two drifts of one address produce one piece of work for
// its slot.
func TestOnePieceOfWork(t *testing.T) {
	s := newScene(t)
	next := aliceRecord("z", "2")
	r := repair{Reconciler: s.Reconciler, group: s.group, gone: map[netip.Addr]uint64{}}
	for _, d := range []drift.Operation{
		{Kind: inspect.DriftRecordUnseen, Inside: alice, Record: next},
		{Kind: inspect.DriftElementMissing, Inside: alice},
		{Kind: inspect.DriftElementOrphaned, Inside: alice, Element: nat.Entry{Inside: alice, Gate: nat.GateOpen}},
	} {
		r.mendLocked(&d)
	}
	if s.life.Busy() != 1 || s.life.Slot(alice).Stray() {
		t.Errorf("%d pieces of work, stray %t; want 1 and false", s.life.Busy(), s.life.Slot(alice).Stray())
	}
}

// TestEndSeenWhileBusy: when the feed is taken up again, a missing record is
// noticed although its slot is busy, because the feed does not repeat earlier
// entries.
func TestEndSeenWhileBusy(t *testing.T) {
	s := newScene(t)
	if !s.life.Repairs().Reprogram(s.life.Slot(alice)) {
		t.Fatal("the slot is busy already")
	}
	r := repair{Reconciler: s.Reconciler, dryRun: true, group: s.group, anew: true, gone: map[netip.Addr]uint64{}}
	var views drift.Views
	views.Engine.Slots = map[netip.Addr]drift.Slot{}
	views.Kernel.Elements = map[netip.Addr]nat.Entry{}
	s.newPass(s.group, Comparison{}).showSlots(&views, &doubts{inside: []netip.Addr{alice}, online: true})
	r.mend(drift.Diff(&views))
	if len(r.drifts) != 1 || r.drifts[0].Kind != inspect.DriftBindingOrphaned {
		t.Errorf("found %v, want %s", r.drifts, inspect.DriftBindingOrphaned)
	}
}

// TestLostRecordOfBusySlot_I6: a record that a suspect database lost is written back although
// its slot is busy, such as with a growth. The next comparison trusts the database, and would
// end the subscriber.
func TestLostRecordOfBusySlot_I6(t *testing.T) {
	s := newScene(t)
	if !s.life.Repairs().Reprogram(s.life.Slot(alice)) {
		t.Fatal("the slot is busy already")
	}
	s.group.suspect = true
	r := repair{Reconciler: s.Reconciler, group: s.group, gone: map[netip.Addr]uint64{}}
	var views drift.Views
	views.Engine.Slots = map[netip.Addr]drift.Slot{}
	views.Kernel.Elements = map[netip.Addr]nat.Entry{}
	s.newPass(s.group, Comparison{}).showSlots(&views, &doubts{inside: []netip.Addr{alice}, online: true})
	r.mend(drift.Diff(&views))
	if len(r.lost) != 1 || r.lost[0].Inside != alice {
		t.Errorf("%v are written back, want that of %v", r.lost, alice)
	}
}

// TestStaleRowOfBlockInUse_NAT40: a row that was found stale is not removed
// after another subscriber has got the block.
func TestStaleRowOfBlockInUse_NAT40(t *testing.T) {
	s := newScene(t)
	r := repair{Reconciler: s.Reconciler, group: s.group, gone: map[netip.Addr]uint64{}}
	r.mendLocked(&drift.Operation{Kind: inspect.DriftBindingStale, Inside: bob, Blocks: nat.Blocks{Block: s.life.Slot(alice).Expected().Block}})
	if slices.ContainsFunc(s.writes, func(w lifecycle.Write) bool { return w.Remove }) {
		t.Error("the row of the binding in force is removed")
	}
}
