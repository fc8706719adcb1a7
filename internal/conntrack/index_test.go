package conntrack

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"

	"github.com/sessiond/sessiond/internal/addrrange"
)

func testSpans(t testing.TB) addrrange.Set {
	s, err := rangesOf([]netip.Prefix{netip.MustParsePrefix("100.64.0.0/10")})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const firstInside = 100<<24 | 64<<16

// check verifies every internal invariant of the index.
func (x *index) check() error {
	records := 0
	for addr, own := range x.byAddr {
		o := x.owners.At(own)
		if o.addr != addr || o.count == 0 {
			return fmt.Errorf("owner %d of %v has address %v, count %d", own, addrrange.Address(addr), addrrange.Address(o.addr), o.count)
		}
		n, prev := uint32(0), uint32(0)
		for slot := o.head; slot != 0; slot = x.records.At(slot).next {
			r := x.records.At(slot)
			if r.owner != own || r.prev != prev || r.kind == recordFree {
				return fmt.Errorf("record %d in the list of owner %d: %+v", slot, own, *r)
			}
			prev = slot
			n++
		}
		if n != o.count {
			return fmt.Errorf("%v counts %d, has %d", addrrange.Address(addr), o.count, n)
		}
		records += int(n)
	}
	return x.checkRecords(records)
}

func (x *index) checkRecords(want int) error {
	flows, records := 0, 0
	for slot := uint32(1); slot <= uint32(x.records.Len()); slot++ {
		r := x.records.At(slot)
		if r.kind != recordFree {
			records++
		}
		if !r.is(recordFirst) {
			continue
		}
		flows++
		if got := x.lookup.find(r.key, &x.records); got != slot {
			return fmt.Errorf("lookup of record %d finds %d", slot, got)
		}
	}
	free := 0
	for slot := x.free; slot != 0; slot = x.records.At(slot).next {
		free++
	}
	if records != want || flows != x.flows || free+records != x.records.Len() {
		return fmt.Errorf("records %d, owners name %d; flows %d, counted %d; free %d of %d",
			records, want, flows, x.flows, free, x.records.Len())
	}
	return nil
}

// walker is a small model of the kernel: its entries, and the events that the index has not
// read yet.
type walker struct {
	rand   *rand.Rand
	index  *index
	kernel map[key]flow
	queue  []event
	dump   []flow // entries of the dump that the index has not read yet
	rest   []key  // entries that the dump will still show
	nextID uint32
}

func (w *walker) randomFlow() flow {
	inside := func() uint32 { return firstInside + w.rand.Uint32N(6) }
	outer := 198<<24 + w.rand.Uint32N(2)
	f := flow{
		orig:  key{src: inside(), dst: outer, sport: uint16(w.rand.UintN(4)), proto: 17, zone: uint16(w.rand.UintN(2))},
		reply: key{src: outer, dst: outer + 9},
	}
	switch w.rand.IntN(4) {
	case 0:
		f.reply.src = inside()
	case 1:
		f.orig.src, f.reply.src = outer+5, inside()
	case 2:
		f.orig.dst = inside()
	}
	return f
}

func (w *walker) create() {
	f := w.randomFlow()
	if _, ok := w.kernel[f.orig]; ok {
		return
	}
	w.nextID += w.rand.Uint32N(2) // a successor may have the same identifier
	f.id = w.nextID
	w.kernel[f.orig] = f
	w.queue = append(w.queue, event{flow: f})
}

func (w *walker) destroy() {
	for k, f := range w.kernel {
		delete(w.kernel, k)
		w.queue = append(w.queue, event{flow: f, ended: true})
		return
	}
}

func (w *walker) readEvents(n int) {
	n = min(n, len(w.queue))
	l := listener{index: w.index}
	l.apply(w.queue[:n])
	w.queue = w.queue[n:]
}

// deleteOne does the steps of DeleteEntry, with events and successors on the same tuple in
// between.
func (w *walker) deleteOne() {
	for addr := range w.index.byAddr {
		targets := w.index.collect(nil, addr)
		w.readEvents(w.rand.IntN(3))
		for _, t := range targets {
			f, ok := w.kernel[t.key]
			if !ok || f.id != t.id {
				continue
			}
			delete(w.kernel, t.key)
			w.queue = append(w.queue, event{flow: f, ended: true})
			if w.rand.IntN(2) == 0 {
				w.kernel[t.key] = f
				w.queue = append(w.queue, event{flow: f})
			}
		}
		w.readEvents(w.rand.IntN(len(w.queue) + 1))
		w.index.forget(targets)
		return
	}
}

// finishRebuild lets the index ask the kernel for entries that the dump did not show.
func (w *walker) finishRebuild() {
	_ = w.index.finishRebuild(func(unseen []entryRef) (gone []entryRef, err error) {
		for _, t := range unseen {
			if f, ok := w.kernel[t.key]; !ok || f.id != t.id {
				gone = append(gone, t)
			}
		}
		return gone, nil
	})
}

func (w *walker) stepDump() {
	switch {
	case !w.index.rebuild.running:
		w.index.beginRebuild()
		for k := range w.kernel {
			w.rest = append(w.rest, k)
		}
	case len(w.rest) > 0:
		// The dump of an audit may miss existing entries.
		missed := w.index.rebuild.untold != nil && w.rand.IntN(5) == 0
		if f, ok := w.kernel[w.rest[0]]; ok && !missed {
			w.dump = append(w.dump, f)
		}
		w.rest = w.rest[1:]
	case len(w.dump) > 0:
		w.index.listed(w.dump)
		w.dump = nil
	default:
		w.readEvents(len(w.queue))
		w.finishRebuild()
	}
}

// TestIndexRandomWalk: the index equals the kernel whenever all events were
// read, for any order of events, dumps and deletes; after losses too, once a
// rebuild has begun after them.
func TestIndexRandomWalk(t *testing.T) {
	for seed := range uint64(60) {
		w := &walker{
			rand: rand.New(rand.NewPCG(seed, 1)), kernel: make(map[key]flow),
			index: newIndex(testSpans(t)),
		}
		for step := range 3000 {
			w.step()
			if err := errors.Join(w.index.check(), w.checkComplete()); err != nil {
				t.Fatalf("seed %d, step %d: %v", seed, step, err)
			}
			if step%500 == 499 {
				w.settle(t, seed)
			}
		}
	}
}

// checkComplete verifies the base of all proofs: a complete index has all entries of the
// kernel, except those of events that have not been read.
func (w *walker) checkComplete() error {
	if n := w.index.rebuild.errors.missed; n != 0 {
		return fmt.Errorf("%d entries are said to have had no event", n)
	}
	if !w.index.complete {
		return nil
	}
	waiting := make(map[identity]bool)
	for _, e := range w.queue {
		waiting[identity{e.flow.orig, e.flow.id}] = true
	}
	for k, f := range w.kernel {
		slot := w.index.lookup.find(k, &w.index.records)
		known := slot != 0 && w.index.records.At(slot).id == f.id
		if o := f.owners(w.index.inside); o.n > 0 && !known && !waiting[identity{k, f.id}] {
			return fmt.Errorf("the complete index lacks %+v", f)
		}
	}
	return nil
}

func (w *walker) step() {
	switch p := w.rand.IntN(100); {
	case p < 35:
		w.create()
	case p < 55:
		w.destroy()
	case p < 80:
		w.readEvents(1 + w.rand.IntN(4))
	case p < 85:
		w.deleteOne()
	case p < 86 && !w.index.rebuild.running:
		w.queue = w.queue[:w.rand.IntN(len(w.queue)+1)] // lost
		w.index.lost()
		w.readEvents(len(w.queue))
		w.finishDump()
	default:
		w.stepDump()
	}
}

func (w *walker) finishDump() {
	for w.stepDump(); w.index.rebuild.running; {
		w.stepDump()
	}
}

func (w *walker) settle(t *testing.T, seed uint64) {
	for w.index.rebuild.running {
		w.stepDump()
	}
	if !w.index.complete { // the first build, or a rebuild that had begun before a loss
		w.finishDump()
	}
	w.readEvents(len(w.queue))
	want := make(map[uint32]int)
	flows := 0
	for _, f := range w.kernel {
		o := f.owners(w.index.inside)
		for _, addr := range o.list() {
			want[addr]++
		}
		if o.n > 0 {
			flows++
		}
	}
	if w.index.flows != flows || len(w.index.byAddr) != len(want) {
		t.Fatalf("seed %d: index has %d flows of %d addresses, the kernel %d of %d",
			seed, w.index.flows, len(w.index.byAddr), flows, len(want))
	}
	for addr, n := range want {
		if got := w.index.count(addr); got != n {
			t.Fatalf("seed %d: %v has %d entries in the index, %d in the kernel", seed, addrrange.Address(addr), got, n)
		}
	}
}

// BenchmarkIndex measures a session's begin and end in the index alone, and the memory that
// it takes while it lives.
func BenchmarkIndex(b *testing.B) {
	for _, n := range []int{100_000, 1_000_000} {
		b.Run(fmt.Sprintf("sessions=%d", n), func(b *testing.B) {
			var before, after runtime.MemStats
			for b.Loop() {
				runtime.GC()
				runtime.ReadMemStats(&before)
				x := newIndex(testSpans(b))
				for i := range n {
					x.createdLocked(session(i))
				}
				runtime.GC()
				runtime.ReadMemStats(&after)
				for i := range n {
					x.destroyedLocked(session(i))
				}
			}
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(n), "B/session")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/session")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// session returns the i-th of many sessions, a hundred for each subscriber.
func session(i int) *flow {
	return &flow{
		orig:  key{src: firstInside + uint32(i/100), dst: 203<<24 + uint32(i)*7919, sport: uint16(i), dport: 443, proto: 6},
		reply: key{src: 203<<24 + uint32(i)*7919, dst: 198 << 24, sport: 443, dport: uint16(i), proto: 6},
		id:    uint32(i) * 2654435761,
	}
}
