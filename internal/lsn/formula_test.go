package lsn

import (
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

// ownConfig is a group in deterministic mode with 12 inside addresses and 15 blocks: of five on
// each of three outside addresses.
func ownConfig() GroupConfig {
	return GroupConfig{
		Name: "default", Inside: prefixes("100.64.0.0/29", "10.0.0.0/30"),
		Outside:   prefixes("198.51.100.0/31", "203.0.113.8/32"),
		FirstPort: 1024, LastPort: 6500, BlockSize: 1024, Hold: 20 * time.Second, Deterministic: true,
	}
}

// TestFormula: block by inside address, and back, for several prefixes inside and outside.
func TestFormula_NAT38(t *testing.T) {
	c := ownConfig()
	f := c.Formula()
	for _, one := range []struct{ inside, block string }{
		{"100.64.0.0", "198.51.100.0:1024-2047"}, // the first address of a prefix has one too
		{"100.64.0.1", "198.51.100.0:2048-3071"},
		{"100.64.0.4", "198.51.100.0:5120-6143"}, // the last whole block below 6500
		{"100.64.0.5", "198.51.100.1:1024-2047"},
		{"100.64.0.7", "198.51.100.1:3072-4095"},
		{"10.0.0.0", "198.51.100.1:4096-5119"}, // the second prefix, numbered in the file's order
		{"10.0.0.2", "203.0.113.8:1024-2047"},
		{"10.0.0.3", "203.0.113.8:2048-3071"},
		{"10.0.0.4", ""},
		{"100.64.0.8", ""},
	} {
		inside := netip.MustParseAddr(one.inside)
		b, ok := f.Block(inside)
		if !ok {
			if one.block != "" {
				t.Errorf("%v has no block, want %s", inside, one.block)
			}
			continue
		}
		if got := fmt.Sprintf("%v:%d-%d", b.Outside, b.First, b.Last); got != one.block {
			t.Errorf("%v has %s, want %q", inside, got, one.block)
		}
		for _, port := range []nat.Port{b.First, b.First + 511, b.Last} {
			if back, ok := f.Inside(b.Outside, port); !ok || back != inside {
				t.Errorf("%v:%d is of %v, want %v", b.Outside, port, back, inside)
			}
		}
	}
	for _, nobody := range []string{"198.51.100.0:1023", "198.51.100.0:6144", "203.0.113.8:3072", "198.51.100.2:1024", "203.0.113.8:65535"} {
		a := netip.MustParseAddrPort(nobody)
		if inside, ok := f.Inside(a.Addr(), nat.Port(a.Port())); ok {
			t.Errorf("%s is of %v", nobody, inside)
		}
	}
}

// TestFormulaIsStable: appended prefixes change nobody's block.
func TestFormulaIsStable_NAT38(t *testing.T) {
	before, after := ownConfig(), ownConfig()
	after.Inside = append(after.Inside, prefixes("10.1.0.0/30")...)
	after.Outside = append(after.Outside, prefixes("203.0.113.16/30")...)
	was, is := before.Formula(), after.Formula()
	for _, p := range before.Inside {
		for a := p.Addr(); p.Contains(a); a = a.Next() {
			x, _ := was.Block(a)
			if y, ok := is.Block(a); !ok || x != y {
				t.Errorf("%v had %v, has %v", a, x, y)
			}
		}
	}
}

// TestOwnBlocks_NAT38 walks randomly through an engine that changes between the modes, beside a
// model of deterministic mode.
func TestOwnBlocks_NAT38(t *testing.T) {
	steps := 3000
	if testing.Short() {
		steps = 500
	}
	for seed := range uint64(testenv.Walks(20)) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			c := ownConfig()
			c.Deterministic = seed%2 == 0
			e, err := New([]GroupConfig{c})
			if err != nil {
				t.Fatal(err)
			}
			w := &ownWalk{TB: t, Rand: rand.New(rand.NewPCG(seed, 7)), engine: e, config: c, now: time.Unix(1_700_000_000, 0), waiting: map[netip.Addr]nat.Holder{}}
			for range steps {
				w.step()
			}
		})
	}
}

type ownWalk struct {
	testing.TB
	*rand.Rand
	engine  *Engine
	config  GroupConfig
	now     time.Time
	used    []nat.Binding // live and held
	waiting map[netip.Addr]nat.Holder
	embargo time.Time
	trace   []string
}

func (w *ownWalk) note(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf(format, args...))
	if len(w.trace) > 30 {
		w.trace = w.trace[1:]
	}
}

func (w *ownWalk) fail(format string, args ...any) {
	w.Helper()
	w.Fatalf("%s\nafter %q", fmt.Sprintf(format, args...), w.trace)
}

func (w *ownWalk) holder() nat.Holder {
	inside := netip.AddrFrom4([4]byte{100, 64, 0, byte(w.IntN(8))})
	if w.IntN(3) == 0 {
		inside = netip.AddrFrom4([4]byte{10, 0, 0, byte(w.IntN(5))}) // one of them is not in the group
	}
	return nat.Holder{Inside: inside, Identity: []string{"", "u:alice", "u:bob"}[w.IntN(3)], AcctSessionID: fmt.Sprint(w.IntN(1000))}
}

// owns returns the block of an inside address, from a list of all blocks in their order.
func (w *ownWalk) owns(inside netip.Addr) nat.Block {
	var blocks []nat.Block
	for _, p := range w.config.Outside {
		for a := p.Addr(); p.Contains(a); a = a.Next() {
			for first := nat.Port(1024); first+1023 <= 6500; first += 1024 {
				blocks = append(blocks, nat.Block{Outside: a, First: first, Last: first + 1023})
			}
		}
	}
	n := 0
	for _, p := range w.config.Inside {
		for a := p.Addr(); p.Contains(a); a = a.Next() {
			if a == inside {
				return blocks[n]
			}
			n++
		}
	}
	return nat.Block{}
}

// holds returns the number of the model's binding that has a block, or -1.
func (w *ownWalk) holds(b nat.Block) int {
	return slices.IndexFunc(w.used, func(x nat.Binding) bool { return x.Has(b) })
}

func (w *ownWalk) live(inside netip.Addr) int {
	return slices.IndexFunc(w.used, func(x nat.Binding) bool { return x.Inside == inside && x.State.Live() })
}

// mayHave reports whether a subscriber may have its own block now, and takes a hold of its
// address away.
func (w *ownWalk) mayHave(h nat.Holder) bool {
	i := w.holds(w.owns(h.Inside))
	switch {
	case i < 0:
		return w.now.After(w.embargo) || w.now.Equal(w.embargo)
	case w.used[i].State != nat.Held || w.used[i].Inside != h.Inside:
		return false
	}
	w.used = slices.Delete(w.used, i, i+1)
	return true
}

func (w *ownWalk) step() {
	switch n := w.IntN(100); {
	case n < 40:
		w.allocate()
	case n < 70:
		w.end()
	case n < 90:
		w.now = w.now.Add(time.Duration(w.IntN(12)) * time.Second)
		w.note("at %v", w.now.Unix())
		w.advance()
	case n < 93:
		w.restore()
	case n < 96:
		h := w.holder()
		w.note("forget %v", h.Inside)
		w.engine.Forget("default", h.Inside)
		delete(w.waiting, h.Inside)
	case n < 97:
		w.note("quarantine")
		w.engine.Quarantine("default", w.now)
		w.embargo = w.now.Add(w.config.Hold)
	default:
		w.config.Deterministic = !w.config.Deterministic || w.IntN(2) == 0
		w.note("deterministic: %v", w.config.Deterministic)
		if err := w.engine.Reconfigure([]GroupConfig{w.config}); err != nil {
			w.fail("%v", err)
		}
		w.advance()
	}
	w.compare()
}

func (w *ownWalk) allocate() {
	h := w.holder()
	w.note("allocate %v %s", h.Inside, h.Identity)
	got, err := w.engine.Allocate("default", h, w.now)
	own := w.owns(h.Inside)
	switch {
	case own == nat.Block{}:
		if !errors.Is(err, ErrNotInside) {
			w.fail("allocated outside of the group: %v", err)
		}
	case w.live(h.Inside) >= 0:
		if !errors.Is(err, ErrBusy) {
			w.fail("allocated beside a live binding: %v", err)
		}
	case !w.config.Deterministic:
		w.learn(h, got, err)
	case w.mayHave(h):
		if err != nil || got.Blocks != (nat.Blocks{Block: own}) {
			w.fail("%v got %v, %v; want %v", h.Inside, got.Ports(), err, own)
		}
		w.used = append(w.used, got)
		delete(w.waiting, h.Inside)
	default:
		if !errors.Is(err, ErrExhausted) {
			w.fail("%v got %v, %v; want to wait", h.Inside, got.Ports(), err)
		}
		w.waiting[h.Inside] = h
	}
}

// learn takes over the result of an allocation in dynamic mode, which other tests hold.
func (w *ownWalk) learn(h nat.Holder, got nat.Binding, err error) {
	if err != nil {
		w.waiting[h.Inside] = h
		return
	}
	w.used = slices.DeleteFunc(w.used, func(x nat.Binding) bool { return x.Block == got.Block && x.Inside == got.Inside })
	if w.holds(got.Block) >= 0 {
		w.fail("%v was given twice", got.Block)
	}
	w.used = append(w.used, got)
	delete(w.waiting, h.Inside)
}

// end cuts a live binding, and mostly holds it.
func (w *ownWalk) end() {
	i := w.live(w.holder().Inside)
	if i < 0 {
		return
	}
	b := &w.used[i]
	w.note("end %v", b.Inside)
	if b.State != nat.Cut {
		if _, err := w.engine.Cut("default", b.Inside, w.now); err != nil {
			w.fail("%v", err)
		}
		b.State = nat.Cut
	}
	if w.IntN(3) > 0 {
		held, err := w.engine.Hold("default", b.Inside, w.now)
		if err != nil {
			w.fail("%v", err)
		}
		*b = held
	}
}

func (w *ownWalk) advance() {
	freed, served := w.engine.Advance(w.now, nil, nil)
	for _, b := range freed {
		i := w.holds(b.Block)
		if i < 0 || w.used[i].State != nat.Held || w.now.Before(w.used[i].HoldUntil) {
			w.fail("freed %v:%s of %v", b.Outside, b.Ports(), b.Inside)
		}
		w.used = slices.Delete(w.used, i, i+1)
	}
	for _, b := range served {
		h := w.waiting[b.Inside]
		if !w.config.Deterministic {
			w.learn(h, b, nil)
			continue
		}
		if !w.mayHave(h) || b.Blocks != (nat.Blocks{Block: w.owns(b.Inside)}) {
			w.fail("served %v with %v:%s", b.Inside, b.Outside, b.Ports())
		}
		w.used = append(w.used, b)
		delete(w.waiting, b.Inside)
	}
	if !w.config.Deterministic {
		return
	}
	for inside := range w.waiting {
		if i := w.holds(w.owns(inside)); i < 0 && !w.now.Before(w.embargo) {
			w.fail("%v still waits for its block", inside)
		}
	}
}

// restore enters a binding wherever the engine takes it, as from before a change of the mode.
func (w *ownWalk) restore() {
	h := w.holder()
	b := nat.Binding{
		Group: "default", Blocks: nat.Blocks{Block: w.owns(w.holder().Inside)}, Holder: h,
		State: []nat.State{nat.Active, nat.Held}[w.IntN(2)], AllocatedAt: w.now, HoldUntil: w.now.Add(10 * time.Second),
	}
	if b.State == nat.Active {
		b.HoldUntil = time.Time{}
	}
	if b.Block == (nat.Block{}) || w.holds(b.Block) >= 0 {
		return
	}
	w.note("restore %v:%s of %v, %v", b.Outside, b.Ports(), b.Inside, b.State)
	err := w.engine.Restore(b)
	if busy := b.State.Live() && w.live(b.Inside) >= 0; busy != (err != nil) {
		w.fail("restore: %v", err)
	}
	if err == nil {
		w.used = append(w.used, b)
		if b.State.Live() {
			delete(w.waiting, b.Inside)
		}
	}
}

func (w *ownWalk) compare() {
	if err := w.engine.Check(); err != nil {
		w.fail("%v", err)
	}
	var got []string
	elsewhere := 0
	w.engine.Bindings("default", func(b nat.Binding) bool {
		got = append(got, fmt.Sprint(b.Inside, b.Outside, b.Ports(), b.State, b.Identity))
		return true
	})
	var want []string
	for _, b := range w.used {
		want = append(want, fmt.Sprint(b.Inside, b.Outside, b.Ports(), b.State, b.Identity))
		if b.State.Live() && b.Block != w.owns(b.Inside) {
			elsewhere++
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		w.fail("bindings are\n%q, want\n%q", got, want)
	}
	if n := w.engine.Pending("default"); n != len(w.waiting) {
		w.fail("%d wait, want %d", n, len(w.waiting))
	}
	if n := w.engine.Elsewhere("default"); w.config.Deterministic && n != elsewhere {
		w.fail("%d are elsewhere, want %d", n, elsewhere)
	}
}
