package session

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/reconcile"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// messes has, by kind of drift, a change outside the daemon about one
// subscriber of the crowd that is to be found as that kind.
var messes = map[inspect.DriftKind]func(*world, int){
	inspect.DriftBindingOrphaned: func(w *world, i int) {
		w.client.Del(w.t.Context(), "sessiond:{default}:sub:"+crowded(i).String())
	},
	inspect.DriftElementMissing: func(w *world, i int) { w.unprogram(crowded(i)) },
	inspect.DriftElementDiffers: func(w *world, i int) {
		e := w.entry(crowded(i))
		e.Gate = nat.GateDraining
		w.program(e)
	},
	inspect.DriftElementOrphaned: func(w *world, i int) {
		w.program(nat.Entry{Inside: crowded(1<<20 + i), Gate: nat.GateOpen, Block: nat.Block{Outside: netip.MustParseAddr("198.51.100.0"), First: 1024, Last: 1535}})
	},
	inspect.DriftBindingUnsaved: func(w *world, i int) {
		b := w.bindings(crowded(i))[nat.Active]
		w.saveRows(nil, b.Place())
	},
	inspect.DriftBindingStale: func(w *world, i int) {
		row := nat.Binding{
			Group: w.group.Name, Blocks: nat.Blocks{Block: nat.Block{Outside: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), First: nat.Port(1024 + 512*(i>>8)), Last: nat.Port(1535 + 512*(i>>8))}},
			Holder: nat.Holder{Inside: crowded(i)}, State: nat.Active, AllocatedAt: time.Now(),
		}
		w.saveRows([]nat.Binding{row})
	},
}

// notNotifying is a store that tells of no removal by others. A daemon switches
// the notices of Redis on again, so clearing them there is not enough.
type notNotifying struct{ Store }

func (notNotifying) WatchRemovals(ctx context.Context, _ func(string) bool, _ func(subscriber.Key, subscriber.Reason)) error {
	<-ctx.Done()
	return ctx.Err()
}

func unnotified(w *world) {
	w.store = func(db *subscriberdb.DB) Store { return notNotifying{db} }
}

func (w *world) program(e nat.Entry) {
	w.t.Helper()
	if err := w.nat.Apply(w.t.Context(), []nat.Entry{e}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) saveRows(put []nat.Binding, remove ...nat.Place) {
	w.t.Helper()
	if err := w.db.SaveBindings(w.t.Context(), w.group.Name, put, remove); err != nil {
		w.t.Fatal(err)
	}
}

// TestEveryStretchIsCompared_NAT40: of more subscribers than fit one stretch, a
// look at everything reports each difference once, wherever it is, and repairs
// it. It reports nothing about the others.
func TestEveryStretchIsCompared_NAT40(t *testing.T) {
	const n, each = 5*reconcile.StretchSize + 17, 25
	w := newMultitude(t, n, unnotified, func(w *world) { w.every = time.Hour })
	w.reconcile(t)
	r := rand.New(rand.NewPCG(5, 6))
	victims := append([]int{0, reconcile.StretchSize - 1, reconcile.StretchSize, n - 1}, r.Perm(n)...)
	want := map[string]string{}
	for _, kind := range slices.Sorted(maps.Keys(messes)) {
		mess := messes[kind]
		for range each {
			i := victims[0]
			victims = victims[1:]
			inside := crowded(i)
			if kind == inspect.DriftElementOrphaned {
				inside = crowded(1<<20 + i)
			}
			if key := inside.String(); want[key] == "" {
				mess(w, i)
				want[key] = string(kind)
			}
		}
	}
	drifts, err := w.Reconcile(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range drifts {
		if want[d.Inside.String()] != string(d.Kind) {
			t.Errorf("found %s of %s, want %q", d.Kind, d.Inside, want[d.Inside.String()])
		}
		delete(want, d.Inside.String())
	}
	if len(want) > 0 {
		t.Errorf("not found: %v", want)
	}
	w.until("all to be mended", func() bool {
		left, err := w.Reconcile(t.Context(), false)
		return err == nil && len(left) == 0
	})
	w.check()
}

// TestPresenceIsLookedAt_DEL09: without notices and requests, a missing record
// and a wrong element are found within the interval of looks at presence, also
// while a look at everything runs.
func TestPresenceIsLookedAt_DEL09(t *testing.T) {
	w := newMultitude(t, 2*reconcile.StretchSize, unnotified, func(w *world) { w.every = 200 * time.Millisecond })
	gone, closed := crowded(reconcile.StretchSize), crowded(3)
	w.client.Del(t.Context(), "sessiond:{default}:sub:"+gone.String())
	w.unprogram(closed)
	w.nothingLeft(gone)
	w.until("the gate to be open again", func() bool { return w.entry(closed).Gate == nat.GateOpen })
	w.until("both looks to be told of", func() bool {
		w.seen.mu.Lock()
		defer w.seen.mu.Unlock()
		return w.seen.looked[inspect.LookPresence] > 0 && w.seen.looked[inspect.LookEverything] > 0
	})
	w.until("nothing to differ", func() bool {
		left, err := w.Reconcile(t.Context(), true)
		return err == nil && len(left) == 0
	})
}

// TestAdoptionIsTakenUpAgain_I7: a start that fails in the middle of adoption,
// at any read, continues from there, and all subscribers keep their blocks.
func TestAdoptionIsTakenUpAgain_I7(t *testing.T) {
	const n = reconcile.StretchSize + 100
	w := newMultitude(t, n)
	before := w.blocks()
	for reads := int64(1); ; reads += 1 + reads/4 {
		w.halt()
		store := &failingOnce{}
		store.left.Store(reads)
		w.store = func(db *subscriberdb.DB) Store { store.Store = db; return store }
		w.boot()
		if store.left.Swap(0) > 0 {
			return // a start has no more reads
		}
		w.until("everybody to be served", func() bool { return w.opened() == n })
		if after := w.blocks(); !maps.Equal(before, after) {
			t.Fatalf("after a failure of read %d the blocks are others", reads)
		}
		w.check()
	}
}

// TestStandingRecordsAreReadOnce: a start or a look at everything does not ask
// again about records that it has seen to stand; it asks about the others.
func TestStandingRecordsAreReadOnce(t *testing.T) {
	const n = 2*reconcile.StretchSize + 17
	w := newMultitude(t, n)
	w.halt()
	store := &countingGone{}
	w.store = func(db *subscriberdb.DB) Store { store.Store = notNotifying{db}; return store }
	w.every = time.Hour
	w.boot()
	w.reconcile(t)
	if asked := store.asked.Load(); asked != 0 {
		t.Errorf("asked of %d records that were read", asked)
	}
	gone := crowded(reconcile.StretchSize)
	w.client.Del(t.Context(), "sessiond:{default}:sub:"+gone.String())
	if drifts, err := w.Reconcile(t.Context(), true); err != nil || len(drifts) != 1 || drifts[0].Inside != gone {
		t.Errorf("found %v, %v", drifts, err)
	}
	if asked := store.asked.Load(); asked != 1 {
		t.Errorf("asked of %d records, want the one that is gone", asked)
	}
}

// countingGone counts the records about which Gone is asked.
type countingGone struct {
	Store
	asked atomic.Int64
}

func (s *countingGone) Gone(ctx context.Context, group string, inside []netip.Addr) ([]netip.Addr, error) {
	s.asked.Add(int64(len(inside)))
	return s.Store.Gone(ctx, group, inside)
}

// blocks returns the blocks of all served subscribers.
func (w *world) blocks() map[netip.Addr]nat.Block {
	w.mu.RLock()
	defer w.mu.RUnlock()
	blocks := map[netip.Addr]nat.Block{}
	w.life.Engine().Bindings(w.group.Name, func(b nat.Binding) bool { blocks[b.Inside] = b.Block; return true })
	return blocks
}

// failingOnce is a store of whose reads one fails, as a whole or in part.
type failingOnce struct {
	Store
	left atomic.Int64 // reads until it fails
}

func (s *failingOnce) fail() error {
	if s.left.Add(-1) == 0 {
		return errors.New("the connection is lost")
	}
	return nil
}

func (s *failingOnce) BindingRows(ctx context.Context, group string, yield func([]subscriberdb.BindingRow) error) error {
	return s.Store.BindingRows(ctx, group, func(rows []subscriberdb.BindingRow) error {
		return errors.Join(yield(rows), s.fail())
	})
}

func (s *failingOnce) BindingRowsInOrder(ctx context.Context, group string, yield func([]subscriberdb.BindingRow) error) error {
	return s.Store.BindingRowsInOrder(ctx, group, func(rows []subscriberdb.BindingRow) error {
		return errors.Join(yield(rows), s.fail())
	})
}

func (s *failingOnce) Records(ctx context.Context, group string, yield func([]subscriber.Record) error) error {
	return s.Store.Records(ctx, group, func(records []subscriber.Record) error {
		return errors.Join(yield(records), s.fail())
	})
}

func (s *failingOnce) Gone(ctx context.Context, group string, inside []netip.Addr) ([]netip.Addr, error) {
	if err := s.fail(); err != nil {
		return nil, err
	}
	return s.Store.Gone(ctx, group, inside)
}

func (s *failingOnce) BindingRowsAt(ctx context.Context, group string, blocks []nat.Place) ([]subscriberdb.BindingRow, error) {
	if err := s.fail(); err != nil {
		return nil, err
	}
	return s.Store.BindingRowsAt(ctx, group, blocks)
}
