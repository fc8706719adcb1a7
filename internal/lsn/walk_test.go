package lsn

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/testenv"
)

func prefixes(ss ...string) []netip.Prefix {
	var ps []netip.Prefix
	for _, s := range ss {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

// walkConfig is a pool that is small enough to be exhausted all the time.
func walkConfig() GroupConfig {
	return GroupConfig{
		Name: "default", Inside: prefixes("100.64.0.0/28", "10.0.0.0/30"),
		Outside:   prefixes("198.51.100.0/31", "203.0.113.8/32"),
		FirstPort: 1100, LastPort: 6000, BlockSize: 1024, Hold: 20 * time.Second,
	}
}

// walk compares the engine with the model, step by step.
type walk struct {
	testing.TB
	*rand.Rand
	engine *Engine
	model  *model
	now    time.Time
	trace  []string
}

// newWalk begins a walk; with grow bindings may have up to three blocks.
func newWalk(t testing.TB, seed uint64, grow bool) *walk {
	c := walkConfig()
	if grow {
		c.MaxBlocks, c.LastPort = 3, 9000
	}
	e, err := New([]GroupConfig{c})
	if err != nil {
		t.Fatal(err)
	}
	return &walk{
		TB: t, Rand: rand.New(rand.NewPCG(seed, 0)), engine: e, model: newModel(c),
		now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
	}
}

func (w *walk) inside() netip.Addr {
	a := netip.MustParseAddr("100.64.0.0").As4()
	a[3] = byte(w.IntN(18)) // two of them are not in the group
	return netip.AddrFrom4(a)
}

func (w *walk) holder() nat.Holder {
	return nat.Holder{Inside: w.inside(), Identity: []string{"", "u:alice", "u:bob"}[w.IntN(3)], AcctSessionID: fmt.Sprint(w.IntN(1000))}
}

func (w *walk) step() {
	switch n := w.IntN(100); {
	case n < 30:
		w.allocate()
	case n < 42 && w.model.config.grows():
		w.grow()
	case n < 50 && w.model.config.grows():
		w.shrink()
	case n < 70:
		w.transition()
	case n < 74:
		h := w.inside()
		w.note("forget %v", h)
		w.same("forget", w.engine.Forget("default", h), w.model.forget(h))
	case n < 90:
		w.advance()
	case n < 96:
		w.restore()
	case n < 98:
		w.reconfigure()
	case n < 99:
		w.note("quarantine")
		w.engine.Quarantine("default", w.now)
		w.model.quarantine(w.now)
	default:
		w.now = w.now.Add(-time.Duration(w.IntN(40)) * time.Second)
		w.note("clock steps back to %v", w.now)
	}
	w.compare()
}

func (w *walk) allocate() {
	h := w.holder()
	w.note("allocate %v", h)
	got, err := w.engine.Allocate("default", h, w.now)
	if w.model.chosen = nil; err == nil {
		w.model.chosen = []nat.Block{got.Block}
	}
	want := w.model.allocate(h, w.now)
	w.sameError(err, want)
	if err == nil {
		w.same("allocated", got, w.model.bindings[len(w.model.bindings)-1])
	}
}

// grow asks for one block more beside any of the binding's ranges.
func (w *walk) grow() {
	inside := w.inside()
	b, _ := w.engine.Live("default", inside)
	ranges := slices.Collect(b.Ranges)
	within := ranges[w.IntN(len(ranges))]
	w.note("grow %v beside %v", inside, within)
	var chosen *Growth
	got, err := w.engine.Grow("default", inside, within, w.now)
	if err == nil {
		w.note("got %s, regained %v", got.Ports(), got.Regained)
		chosen = &got
	}
	w.sameError(err, w.model.grow(inside, within, w.now, chosen))
}

func (w *walk) shrink() {
	inside := w.inside()
	w.note("shrink %v", inside)
	_, part, err := w.engine.Shrink("default", inside, w.now)
	w.sameError(err, w.model.shrink(inside, w.now))
	if err == nil {
		w.same("held", part, w.model.bindings[len(w.model.bindings)-1])
	}
}

func (w *walk) transition() {
	inside, to := w.inside(), []nat.State{nat.Active, nat.Draining, nat.Cut, nat.Cut, nat.Held, nat.Held}[w.IntN(6)]
	w.note("make %v %v", inside, to)
	var err error
	switch to {
	case nat.Active:
		_, err = w.engine.Resume("default", inside)
	case nat.Draining:
		_, err = w.engine.Drain("default", inside, w.now)
	case nat.Cut:
		_, err = w.engine.Cut("default", inside, w.now)
	case nat.Held:
		_, err = w.engine.Hold("default", inside, w.now)
	}
	w.sameError(err, w.model.transition(inside, to, w.now))
}

func (w *walk) advance() {
	w.now = w.now.Add(time.Duration(w.IntN(10)) * time.Second)
	w.note("advance to %v", w.now)
	freed, served := w.engine.Advance(w.now, nil, nil)
	w.model.chosen = nil
	for _, b := range served {
		w.model.chosen = append(w.model.chosen, b.Block)
	}
	wantFreed, wantServed := w.model.advance(w.now)
	w.same("freed", fmt.Sprint(freed), fmt.Sprint(wantFreed))
	w.same("served", fmt.Sprint(served), fmt.Sprint(wantServed))
	for _, b := range freed {
		if w.now.Before(b.HoldUntil) {
			w.Fatalf("hold of %v ended too early", b)
		}
	}
}

func (w *walk) restore() {
	b := nat.Binding{
		Group:  "default",
		Blocks: w.blocks(netip.AddrFrom4([4]byte{198, 51, 100, byte(w.IntN(3))})),
		Holder: w.holder(), State: nat.State(1 + w.IntN(4)), AllocatedAt: w.now,
	}
	if b.State == nat.Held {
		b.HoldUntil = w.now.Add(time.Duration(w.IntN(40)-5) * time.Second)
	}
	if b.Len() > 1 {
		b.GrownAt = w.now
	}
	w.note("restore %v", b)
	w.sameError(w.engine.Restore(b), w.model.restore(b))
}

// blocks returns one to three blocks of an outside address; some are out of the port range.
func (w *walk) blocks(outside netip.Addr) (blocks nat.Blocks) {
	for i := range 1 + w.IntN(3) {
		first := nat.Port(1024 * (1 + w.IntN(6)))
		b := nat.Block{Outside: outside, First: first, Last: first + 1023}
		if i == 0 {
			blocks.Block = b
		} else {
			blocks, _ = blocks.With(b)
		}
	}
	return blocks
}

func (w *walk) reconfigure() {
	c := walkConfig()
	c.Outside = slices.Clone([][]netip.Prefix{
		c.Outside, prefixes("198.51.100.0/32"), prefixes("198.51.100.0/30", "203.0.113.8/32"), prefixes("203.0.113.8/31", "198.51.100.1/32"), nil,
	}[w.IntN(5)])
	if n := w.IntN(3); n < len(c.Outside) { // one of them drains
		c.Draining, c.Outside = slices.Clone(c.Outside[n:n+1]), slices.Delete(c.Outside, n, n+1)
	}
	c.Inside = [][]netip.Prefix{c.Inside, prefixes("100.64.0.0/29")}[w.IntN(2)]
	c.Hold = time.Duration(w.IntN(40)) * time.Second
	c.MaxBlocks, c.LastPort = w.model.config.MaxBlocks, w.model.config.LastPort
	if c.grows() {
		c.MaxBlocks = 2 + w.IntN(3)
	}
	w.note("reconfigure %v", c)
	if err := w.engine.Reconfigure([]GroupConfig{c}); err != nil {
		w.Fatal(err)
	}
	w.model.reconfigure(c)
	if err := w.engine.MayReconfigure([]GroupConfig{c, c}); err == nil {
		w.fatal("a group may be there twice")
	}
}

func (w *walk) note(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf(format, args...))
}

func (w *walk) fatal(format string, args ...any) {
	w.Helper()
	for _, s := range w.trace[max(0, len(w.trace)-20):] {
		w.Log(s)
	}
	w.Fatalf(format, args...)
}

func (w *walk) same(what string, got, want any) {
	w.Helper()
	if got != want {
		w.fatal("%s: %v, want %v", what, got, want)
	}
}

func (w *walk) sameError(got, want error) {
	w.Helper()
	if !errors.Is(got, want) {
		w.fatal("error %v, want %v", got, want)
	}
}

// compare checks all results of the engine, and its invariants.
func (w *walk) compare() {
	w.Helper()
	if err := w.engine.Check(); err != nil {
		w.fatal("check: %v", err)
	}
	w.same("bindings", fmt.Sprint(w.bindings()), fmt.Sprint(sorted(w.model.bindings)))
	var outside []nat.Binding
	w.engine.OutsideFew("default", netip.MustParsePrefix("198.51.100.0/30"), 100, func(b nat.Binding) { outside = append(outside, b) })
	w.same("outside", fmt.Sprint(sorted(outside)), fmt.Sprint(sorted(w.model.at(198))))
	w.same("pending", w.engine.Pending("default"), len(w.model.line))
	for _, h := range w.model.line {
		w.same("is pending", w.engine.IsPending("default", h.Inside), true)
	}
	var total [3]int
	for _, u := range w.engine.Usage() {
		total[0], total[1], total[2] = total[0]+u.Used, total[1]+u.Held, total[2]+u.Free
		w.same("total", u.Total, u.Used+u.Held+u.Free)
	}
	used, held, free := w.model.usage()
	w.same("usage", total, [3]int{used, held, free})
	at, ok := w.engine.Next()
	wantAt, wantOK := w.model.next()
	w.same("next", fmt.Sprint(at, ok), fmt.Sprint(wantAt, wantOK))
	w.lookups()
}

func (w *walk) lookups() {
	var several []netip.Addr
	for _, b := range w.model.bindings {
		for x := range b.All() {
			got, ok := w.engine.AtOutside(b.Outside, x.First+nat.Port(w.IntN(1024)))
			w.same("at outside", fmt.Sprint(got, ok), fmt.Sprint(b, true))
			block, ok := w.engine.BlockAt("default", b.Outside, x.Last)
			w.same("block at", fmt.Sprint(block, ok), fmt.Sprint(x, true))
		}
		for r := range b.Ranges {
			split, ok := w.engine.Split("default", r)
			w.same("split", fmt.Sprint(split.Range(), split.Len(), ok), fmt.Sprint(r, r.Size()/1024, true))
		}
		if b.State != nat.Held {
			got, ok := w.engine.Live("default", b.Inside)
			w.same("live", fmt.Sprint(got, ok), fmt.Sprint(b, true))
			if b.Len() > 1 {
				several = append(several, b.Inside)
			}
		}
	}
	slices.SortFunc(several, netip.Addr.Compare)
	w.same("several", fmt.Sprint(slices.SortedFunc(slices.Values(w.engine.Several("default")), netip.Addr.Compare)), fmt.Sprint(several))
	for _, b := range slices.Concat(w.model.fresh, w.model.free, w.model.locked) {
		if got, ok := w.engine.AtOutside(b.Outside, b.Last); ok {
			w.fatal("free block %v belongs to %v", b, got)
		}
	}
}

func (w *walk) bindings() []nat.Binding {
	var all []nat.Binding
	w.engine.Bindings("default", func(b nat.Binding) bool {
		all = append(all, b)
		return true
	})
	return sorted(all)
}

func sorted(bs []nat.Binding) []nat.Binding {
	bs = slices.Clone(bs)
	slices.SortFunc(bs, func(a, b nat.Binding) int {
		return cmp.Or(a.Outside.Compare(b.Outside), cmp.Compare(a.First, b.First))
	})
	return bs
}

func TestRandomWalk_I1_I5_DEL10_NAT30_NAT37(t *testing.T) {
	t.Parallel()
	for seed := range uint64(testenv.Walks(12)) {
		w := newWalk(t, seed, false)
		for range 400 {
			w.step()
		}
	}
}

// TestRandomGrowth_I1_I5_NAT35 is the random walk with bindings that grow and shrink.
func TestRandomGrowth_I1_I5_NAT35(t *testing.T) {
	t.Parallel()
	for seed := range uint64(testenv.Walks(12)) {
		w := newWalk(t, seed, true)
		for range 400 {
			w.step()
		}
	}
}

func FuzzWalk(f *testing.F) {
	f.Add(uint64(1), uint16(200), false)
	f.Add(uint64(1), uint16(200), true)
	f.Fuzz(func(t *testing.T, seed uint64, steps uint16, grow bool) {
		w := newWalk(t, seed, grow)
		for range steps % 1000 {
			w.step()
		}
	})
}
