package nftnat

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/netns"
	"github.com/sessiond/sessiond/internal/nftnat/wire"
	"github.com/sessiond/sessiond/internal/testenv"
)

// others is a connection by which others change the table.
type others struct {
	t    testing.TB
	conn *wire.Conn
	lab  *netlab.Lab
}

func newOthers(t testing.TB, lab *netlab.Lab) others {
	t.Helper()
	ns, err := netns.Open(lab.CGN.Name())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := wire.Dial(ns.FD())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = conn.Close(), ns.Close() })
	return others{t, conn, lab}
}

// actual reads the kernel's elements by a dump.
func (o others) actual() []nat.Entry {
	o.t.Helper()
	k := &knownElements{conn: o.conn, table: testTable}
	if err := k.salvage(testContext(o.t)); err != nil {
		o.t.Fatal(err)
	}
	entries, _ := k.shadow.entriesFrom(netip.Addr{}, 1<<30)
	return entries
}

// change sets addresses to states that differ from their present ones.
func (o others) change(entries ...nat.Entry) {
	o.t.Helper()
	before := new(shadow)
	for _, e := range o.actual() {
		c := cell{gate: e.Gate}
		if e.Outside.IsValid() {
			c.block = block{e.Outside.As4(), uint16(e.First), uint16(e.Last)}
		}
		before.set(e.Inside.As4(), c)
	}
	changes, err := diff(before, entries)
	if err != nil {
		o.t.Fatal(err)
	}
	var b wire.Batch
	program(&b, testTable, changes)
	known := &knownElements{conn: o.conn, table: testTable, changed: make(chan struct{}, 1)}
	known.static = staticElements{on: true, unknown: true}
	if err := known.ensureStatic(testContext(o.t)); err != nil {
		o.t.Fatal(err)
	}
	for _, e := range entries {
		ops := known.static.opsOf(e.Inside.As4(), e.Forwards)
		addStaticOps(&b, testTable, mapStaticIn, ops)
		addStaticOps(&b, testTable, mapStaticOut, ops)
	}
	if b.Empty() {
		return
	}
	if err := o.conn.Commit(testContext(o.t), &b); err != nil {
		o.t.Fatal(err)
	}
}

func (o others) nft(script string) {
	o.t.Helper()
	run(o.t, o.lab, "nft", script)
}

// crowd returns n open addresses of a prefix.
func crowd(prefix byte, n int) []nat.Entry {
	entries := make([]nat.Entry, n)
	for i := range entries {
		entries[i] = blockOf(netip.AddrFrom4([4]byte{100, prefix + byte(i>>16), byte(i >> 8), byte(i)}), nat.GateOpen, i%100)
	}
	return entries
}

func insideOf(entries []nat.Entry) []netip.Addr {
	list := make([]netip.Addr, len(entries))
	for i := range entries {
		list[i] = entries[i].Inside
	}
	return list
}

// wantChanged waits until Changed signals others' changes.
func wantChanged(t *testing.T, n Contract) {
	t.Helper()
	select {
	case <-n.Changed():
	case <-testContext(t).Done():
		t.Fatal("nobody told that others changed elements")
	}
}

// othersChange is a part of TestContract: changes of others are signalled, and known.
func othersChange(t *testing.T, n Twin) {
	apply(t, n, blockOf(alice, nat.GateOpen, 0), blockOf(bob, nat.GateOpen, 1))
	wantEntries(t, n, blockOf(alice, nat.GateOpen, 0), blockOf(bob, nat.GateOpen, 1))
	stranger := netip.MustParseAddr("100.64.0.200")
	n.Tamper(nat.Entry{Inside: alice}, blockOf(bob, nat.GateDraining, 2), blockOf(stranger, nat.GateOpen, 3))
	wantChanged(t, n)
	if err := n.Learn(testContext(t), []netip.Addr{alice, bob}); err != nil {
		t.Fatal(err)
	}
	if e, ok := n.EntryAt(alice); ok {
		t.Errorf("alice, whom others cut, holds %v", e)
	}
	if e, ok := n.EntryAt(bob); !ok || e != blockOf(bob, nat.GateDraining, 2) {
		t.Errorf("bob, whom others changed, holds %v", e)
	}
	wantEntries(t, n, blockOf(bob, nat.GateDraining, 2), blockOf(stranger, nat.GateOpen, 3))
	apply(t, n, nat.Entry{Inside: stranger}, nat.Entry{Inside: bob})
	wantEntries(t, n)
	select {
	case <-n.Changed():
		t.Error("what we changed ourselves is told")
	default:
	}
}

// pages is a part of TestContract.
func pages(t *testing.T, n Twin) {
	entries := append(crowd(66, 300), crowd(70, 30)...)
	apply(t, n, entries...)
	for _, size := range []int{1, 7, 329, 330, 331} {
		if got := entriesOf(t, n, size); !slices.Equal(got, entries) {
			t.Errorf("pages of %d list %d entries, want %d", size, len(got), len(entries))
		}
	}
	page, next := n.EntriesFrom(testContext(t), netip.MustParseAddr("100.67.0.0"), 2)
	if want := entries[300:302]; !slices.Equal(page, want) || next != entries[302].Inside {
		t.Errorf("a page from between two is %v and goes on at %v, want %v", page, next, want)
	}
	for i := range entries {
		entries[i] = nat.Entry{Inside: entries[i].Inside}
	}
	apply(t, n, entries...)
	wantEntries(t, n)
}

// TestLearnAfterRestart has more elements in the kernel than a limited dump reads.
func TestLearnAfterRestart(t *testing.T) {
	for _, countless := range []bool{false, true} {
		t.Run(fmt.Sprintf("countless %t", countless), func(t *testing.T) {
			lab := newLab(t)
			o := labOptions(lab)
			o.InsidePrefixes = []netip.Prefix{netip.MustParsePrefix("100.64.0.0/16"), netip.MustParsePrefix("100.65.0.0/17")}
			entries := append(crowd(64, 2*dumpLimit), crowd(65, 10)...)
			k := openKernel(t, o)
			apply(t, k, entries...)
			if err := k.Close(); err != nil {
				t.Fatal(err)
			}
			k = openKernel(t, o)
			k.known.countless = countless
			if k.Elements() != 0 {
				t.Errorf("%d elements are known before anything was learned", k.Elements())
			}
			// Apply looks up addresses that it does not know.
			apply(t, k, nat.Entry{Inside: entries[0].Inside}, entries[1], nat.Entry{Inside: entries[0].Inside.Prev()})
			if err := k.Learn(testContext(t), insideOf(entries[:100])); err != nil {
				t.Fatal(err)
			}
			if got, _ := k.EntriesFrom(t.Context(), netip.Addr{}, 1000); !slices.Equal(got, entries[1:100]) {
				t.Errorf("%d entries are known, want the 99 that were named and stand", len(got))
			}
			wantEntries(t, k, entries[1:]...)
			if got := newOthers(t, lab).actual(); !slices.Equal(got, entries[1:]) {
				t.Errorf("%d entries stand, want %d", len(got), len(entries)-1)
			}
		})
	}
}

// TestStrangersOutsideOfThePrefixes: only the kernel's count reveals them.
func TestStrangersOutsideOfThePrefixes(t *testing.T) {
	lab := newLab(t)
	o := labOptions(lab)
	o.InsidePrefixes = []netip.Prefix{netip.MustParsePrefix("100.64.0.0/24")}
	k := openKernel(t, o)
	entries := crowd(70, dumpLimit+1)
	apply(t, k, entries...)
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	k = openKernel(t, o)
	if _, n, err := k.known.readIdentity(t.Context()); err != nil || !n.known {
		testenv.Lacks(t, fmt.Sprintf("a kernel that counts elements (%v)", err))
	}
	wantEntries(t, k, entries...)
}

// TestSilentChangesAreFound changes elements without notices, like a kernel with a bug.
func TestSilentChangesAreFound(t *testing.T) {
	for name, tc := range map[string]struct {
		changed []nat.Entry
		want    func([]nat.Entry) []nat.Entry
	}{
		"a changed element": {[]nat.Entry{blockOf(alice, nat.GateDraining, 9)}, func(e []nat.Entry) []nat.Entry { return append([]nat.Entry{blockOf(alice, nat.GateDraining, 9)}, e...) }},
		"a missing element": {[]nat.Entry{{Inside: alice}}, func(e []nat.Entry) []nat.Entry { return e }},
		"a stranger": {[]nat.Entry{blockOf(bob, nat.GateOpen, 3)}, func(e []nat.Entry) []nat.Entry {
			return append([]nat.Entry{blockOf(alice, nat.GateOpen, 0), blockOf(bob, nat.GateOpen, 3)}, e...)
		}},
	} {
		for _, countless := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, countless %t", name, countless), func(t *testing.T) {
				silentChange(t, countless, tc.changed, tc.want)
			})
		}
	}
}

// TestNoVerificationBesideAStart: the verification does nothing while a start learns all
// elements, and goes on afterwards.
func TestNoVerificationBesideAStart(t *testing.T) {
	lab := newLab(t)
	o := labOptions(lab)
	k := openKernel(t, o)
	entries := crowd(70, 3*lookChunk)
	apply(t, k, entries...)
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	k = openKernel(t, o)
	known := func() int { return k.known.len() - k.known.doubts() }
	for i, inside := range []netip.Addr{entries[0].Inside, entries[1].Inside} {
		if err := errors.Join(k.Learn(testContext(t), []netip.Addr{inside}), k.verify(testContext(t))); err != nil {
			t.Fatal(err)
		}
		if known() != i+1 {
			t.Errorf("%d addresses are known after %d were learned", known(), i+1)
		}
	}
	if err := k.verify(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if known() <= 2 {
		t.Error("the verification does not go on")
	}
}

func silentChange(t *testing.T, countless bool, changed []nat.Entry, want func([]nat.Entry) []nat.Entry) {
	t.Helper()
	lab := newLab(t)
	k := openKernel(t, labOptions(lab))
	k.known.countless = countless
	entries := crowd(70, 200)
	apply(t, k, append(entries, blockOf(alice, nat.GateOpen, 0))...)
	if err := k.notices.Deafen(); err != nil {
		t.Fatal(err)
	}
	newOthers(t, lab).change(changed...)
	if err := k.notices.Hear(); err != nil {
		t.Fatal(err)
	}
	for seconds := 0; len(k.known.changed) == 0; seconds++ {
		if seconds > 60 {
			t.Fatal("not found in 60 s of the verification")
		}
		if err := k.verify(testContext(t)); err != nil {
			t.Fatal(err)
		}
	}
	wantEntries(t, k, want(entries)...)
}

// TestOthersDuringALargeTransaction: changes made while no notices are received are searched
// for.
func TestOthersDuringALargeTransaction(t *testing.T) {
	lab := newLab(t)
	k := openKernel(t, labOptions(lab))
	o := newOthers(t, lab)
	apply(t, k, blockOf(alice, nat.GateOpen, 0))
	err := k.unheard(t.Context(), func() (int, error) {
		o.change(blockOf(alice, nat.GateDraining, 2), blockOf(bob, nat.GateOpen, 3))
		return 0, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	wantEntries(t, k, blockOf(alice, nat.GateDraining, 2), blockOf(bob, nat.GateOpen, 3))
	err = k.unheard(t.Context(), func() (int, error) {
		o.nft("delete table ip sessiond")
		return 0, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	wantEntries(t, k, blockOf(alice, nat.GateDraining, 2), blockOf(bob, nat.GateOpen, 3))
}

// TestVanishedTableCutsNobody: in a deleted table no key is found, which must not be taken for
// deleted elements.
func TestVanishedTableCutsNobody(t *testing.T) {
	lab := newLab(t)
	k := openKernel(t, labOptions(lab))
	apply(t, k, blockOf(alice, nat.GateOpen, 0))
	run(t, lab, "nft", "delete table ip sessiond")
	if _, err := k.known.look(t.Context(), []address{alice.As4()}); !errors.Is(err, errOtherTable) {
		t.Errorf("a look at a table that is gone returned %v", err)
	}
	wantEntries(t, k, blockOf(alice, nat.GateOpen, 0))
}

// TestRestoredTable has the table deleted and made from a saved listing in one transaction:
// afterwards its elements are those of the listing.
func TestRestoredTable(t *testing.T) {
	lab := newLab(t)
	k := openKernel(t, labOptions(lab))
	apply(t, k, blockOf(alice, nat.GateOpen, 0))
	apply(t, k, blockOf(bob, nat.GateOpen, 1), nat.Entry{Inside: alice})
	newOthers(t, lab).nft(`flush ruleset; table ip sessiond {
		map gate { type ipv4_addr : verdict; elements = { 100.64.0.10 : return }; }
	}`)
	if err := k.LearnRest(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantEntries(t, k, nat.Entry{Inside: alice, Gate: nat.GateOpen})
	wantChanged(t, k)
}

// TestWalkWithOthers changes elements from two sides at random, makes tables of others,
// deletes ours, and restarts; the known elements must be those in the kernel.
func TestWalkWithOthers(t *testing.T) {
	for _, countless := range []bool{false, true} {
		t.Run(fmt.Sprintf("countless %t", countless), func(t *testing.T) {
			lab := newLab(t)
			o := labOptions(lab)
			o.InsidePrefixes = []netip.Prefix{netip.MustParsePrefix("100.64.0.0/16")}
			w := walk{
				t: t, k: startKernel(t, o), others: newOthers(t, lab),
				random: rand.New(rand.NewPCG(7, 8)), model: map[netip.Addr]nat.Entry{},
			}
			if err := w.k.inTurn(testContext(t), func() error { w.k.known.countless = countless; return nil }); err != nil {
				t.Fatal(err)
			}
			for range 150 {
				w.step()
			}
		})
	}
}

type walk struct {
	t      *testing.T
	k      *Kernel
	others others
	random *rand.Rand
	model  map[netip.Addr]nat.Entry
}

func (w *walk) entries(n int) []nat.Entry {
	entries := make([]nat.Entry, n)
	for i := range entries {
		inside := netip.AddrFrom4([4]byte{100, 64, 0, byte(w.random.IntN(200))})
		entries[i] = blockOf(inside, nat.Gate(w.random.IntN(3)), w.random.IntN(4))
	}
	return entries
}

func (w *walk) made(entries []nat.Entry) {
	for _, e := range entries {
		if w.model[e.Inside] = e; e.Gate == nat.GateClosed {
			delete(w.model, e.Inside)
		}
	}
}

func (w *walk) step() {
	w.t.Helper()
	switch w.random.IntN(8) {
	case 0, 1:
		entries := w.entries(1 + w.random.IntN(8))
		apply(w.t, w.k, entries...)
		w.made(entries)
	case 2:
		entries := w.entries(2 * heardChanges)
		apply(w.t, w.k, entries...)
		w.made(entries)
	case 3, 4:
		entries := w.entries(1 + w.random.IntN(5))
		w.others.change(entries...)
		w.made(entries)
	case 5:
		w.others.nft("add table ip other; add set ip other s { type ipv4_addr; }; add element ip other s { 192.0.2.1 }; delete table ip other")
	case 6:
		if err := w.k.Learn(testContext(w.t), insideOf(w.entries(10))); err != nil { // all is known before
			w.t.Fatal(err)
		}
		w.others.nft([]string{"flush ruleset", "delete table ip sessiond"}[w.random.IntN(2)])
	case 7:
		w.others.nft("flush map ip sessiond gate; flush map ip sessiond block")
		clear(w.model)
	}
	w.check()
}

func (w *walk) check() {
	w.t.Helper()
	want := make([]nat.Entry, 0, len(w.model))
	for _, e := range w.model {
		want = append(want, e)
	}
	slices.SortFunc(want, func(a, b nat.Entry) int { return a.Inside.Compare(b.Inside) })
	wantEntries(w.t, w.k, want...)
	if got := w.others.actual(); !slices.Equal(got, want) {
		w.t.Fatalf("%d entries stand, want %d: %.300s, want %.300s", len(got), len(want), fmt.Sprint(got), fmt.Sprint(want))
	}
}

// BenchmarkLearn learns and lists all elements after a restart, beside nft loading as many
// elements; and then searches at unnamed addresses.
func BenchmarkLearn(b *testing.B) {
	for _, size := range []int{100_000, 1_000_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) { benchmarkLearn(b, size) })
	}
}

func benchmarkLearn(b *testing.B, size int) {
	lab := newLab(b)
	entries := crowd(64, size)
	loaded := loadByNft(b, lab, entries)
	opened := func() *Kernel {
		k, err := dialAndStart(b.Context(), labOptions(lab))
		if err != nil {
			b.Fatal(err)
		}
		return k
	}
	k := opened()
	if err := k.Apply(b.Context(), entries); err != nil {
		b.Fatal(err)
	}
	_ = k.Close()
	inside := insideOf(entries)
	measure := func(what string, do func(context.Context, *Kernel) error) {
		k := opened()
		defer k.Close()
		began := time.Now()
		if err := do(b.Context(), k); err != nil {
			b.Fatal(err)
		}
		took := time.Since(began)
		if k.Elements() != size {
			b.Fatalf("%s: %d elements, want %d", what, k.Elements(), size)
		}
		b.ReportMetric(took.Seconds(), what+"-s")
		b.ReportMetric(took.Seconds()/loaded, what+"-x-nft")
	}
	for b.Loop() {
		measure("learn", func(ctx context.Context, k *Kernel) error {
			return errors.Join(k.Learn(ctx, inside), k.LearnRest(ctx))
		})
		measure("search", func(ctx context.Context, k *Kernel) error { return k.LearnRest(ctx) })
	}
}

// loadByNft returns the seconds that nft takes to load the elements of as many addresses.
func loadByNft(b *testing.B, lab *netlab.Lab, entries []nat.Entry) float64 {
	b.Helper()
	var gates, blocks strings.Builder
	for i, e := range entries {
		if i > 0 {
			gates.WriteByte(',')
			blocks.WriteByte(',')
		}
		fmt.Fprintf(&gates, "%v:return", e.Inside)
		fmt.Fprintf(&blocks, "%v:%v . %d-%d", e.Inside, e.Outside, uint16(e.First), uint16(e.Last))
	}
	script := fmt.Sprintf(`table ip loaded {
		map gate { type ipv4_addr : verdict; elements = { %s } }
		map block { type ipv4_addr : interval ipv4_addr . inet_service; elements = { %s } }
	}`, gates.String(), blocks.String())
	file := filepath.Join(b.TempDir(), "loaded.nft")
	if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
		b.Fatal(err)
	}
	began := time.Now()
	run(b, lab, "nft", "-f", file)
	took := time.Since(began)
	run(b, lab, "nft", "delete", "table", "ip", "loaded")
	return took.Seconds()
}
