package lifecycle

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/testenv"
)

// TestRandomWalk_I1_I5_DEL10: for inputs in any order, no block has two owners,
// a slot has one piece of work at a time, and nothing contradicts the engine.
// A subscriber may have several blocks, get ports of a part of them, and have mappings: each mapping of a user is where the session
// is that got its first block last, and nowhere else. When all subscribers have left and the holds are over, nothing remains. The
// same history has the same effects.
func TestRandomWalk_I1_I5_DEL10(t *testing.T) {
	for seed := range uint64(testenv.Walks(20)) {
		first, second := walk(t, seed), walk(t, seed)
		if !slices.Equal(first, second) {
			t.Fatalf("seed %d: the same history has other effects", seed)
		}
	}
}

// walk plays a random history, and returns its effects.
func walk(t *testing.T, seed uint64) []string {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	p := newPlayer(t)
	var told []string
	do := func(after time.Duration, format string, args ...any) {
		line := fmt.Sprintf(after.String()+" "+format, args...)
		p.input(line)
		for _, effect := range p.take() {
			if strings.HasPrefix(effect, "fault") {
				t.Fatalf("seed %d: %s: %s", seed, line, effect)
			}
			told = append(told, line+": "+effect)
		}
		if err := p.engine.Check(); err != nil {
			t.Fatalf("seed %d: %s: %v", seed, line, err)
		}
		p.check(seed, line)
	}
	steps := 400
	if seed%3 == 0 { // bindings grow and shrink: that takes quieter times
		steps = 1500
		do(0, "group blocks=16 max=3")
	}
	if seed%2 == 0 { // the first subscriber has two blocks of an earlier start
		do(0, []string{
			"adopt-entry 1 block=1 further=2 stored=user0 of=s0",
			"adopt-entry 1 block=2 further=1 has=2 stored=user0 of=s0 gate=draining",
			"adopt-stored 1 block=1 further=2 stored=user0 of=s0",
			"adopt-stored 1 block=2 further=1 stored=user0 of=s0 state=held",
		}[seed/2%4])
		if p.m.Slot(p.addr([]string{"1"})) != nil {
			do(0, "claim 1 user=user0 session=s0")
			do(0, "step 1")
		}
	}
	after := time.Duration(0)
	for range steps {
		if r.IntN(3) == 0 {
			after += time.Duration(r.IntN(20)) * time.Second
		}
		inside := 1 + r.IntN(5)
		if steps > 400 && r.IntN(3) > 0 {
			do(after, "executors")
			do(after, "ports %d%s", inside, p.someUse(r, inside))
			do(after, "look %d", inside)
			if r.IntN(2) == 0 {
				do(after, "vacant")
			}
			continue
		}
		if r.IntN(8) == 0 {
			port := 60000 + r.IntN(8)
			switch r.IntN(5) {
			case 0, 1:
				do(after, "unmap %d", port)
			case 2:
				do(after, "map %d inside=%d", port, inside)
			default:
				do(after, "map %d user=user%d", port, r.IntN(3))
			}
			continue
		}
		switch r.IntN(17) {
		case 0, 1, 2:
			do(after, "start %d user%d s%d expires=%ds", inside, r.IntN(3), r.IntN(4), 1+r.IntN(300))
		case 3:
			do(after, "stop %d cause=%d", inside, 1+r.IntN(2))
		case 4:
			if p.m.Slot(p.addr([]string{fmt.Sprint(inside)})) != nil {
				do(after, "delete %d %s", inside, []string{"ADMIN", "NAS_RESTART", "EXPIRED"}[r.IntN(3)])
			}
		case 5:
			do(after, "interim %d", inside)
		case 6:
			do(after, "sessions %d %d", inside, r.IntN(3))
		case 7:
			do(after, "removal %s", []string{"on", "off", "observe"}[r.IntN(3)])
		case 8, 9:
			do(after, "tick")
		case 10:
			do(after, "asked")
		case 11:
			do(after, "evict %d", inside)
		case 12:
			do(after, "ports %d%s", inside, p.someUse(r, inside))
			do(after, "look %d", inside)
		case 13:
			do(after, "look %d", inside)
			do(after, "vacant")
		default:
			do(after, "%s", []string{"stored", "programmed", "closed", "reaped"}[r.IntN(4)])
		}
	}
	do(after, "removal on")
	for inside := 1; inside <= 5; inside++ {
		do(after, "stop %d", inside)
	}
	for range 3 { // pending subscribers get a block, and leave it
		do(after, "executors")
		after += 3 * time.Minute
		do(after, "tick")
	}
	do(after, "executors")
	if n, held := p.m.Slots().Len(), p.engine.Held("g"); n+held+p.m.Busy()+p.m.Writes().Len() > 0 {
		t.Fatalf("seed %d: %d slots, %d held blocks, %d pieces of work and %d writes are left", seed, n, held, p.m.Busy(), p.m.Writes().Len())
	}
	return told
}

// someUse returns ports in use of the address's blocks, as an input: few of all, or many.
func (p *player) someUse(r *rand.Rand, inside int) (text string) {
	b, _ := p.engine.Live("g", p.addr([]string{fmt.Sprint(inside)}))
	few := r.IntN(3) > 0
	for x := range b.All() {
		if used := []int{0, 10, 800, 990, 1024}[r.IntN(5)]; x.First > 0 && (!few || used < 100) {
			text += fmt.Sprintf(" %d=%d", x.First/1024, used)
		}
	}
	if r.IntN(2) == 0 {
		text += " remotes=one"
	}
	return text
}

// mayOpen reports whether the gate of the slot may be being opened. For a slot
// that changed hands meanwhile that ends soon.
func (p *player) mayOpen(s *Slot, b *nat.Binding) bool {
	if p.m.Slot(s.Inside()) != s || s.tenure != s.boundTenure {
		return p.opening[s] == s.boundTenure
	}
	p.opening[s] = s.boundTenure
	return b.Identity == s.packed.Identity()
}

// servedBlock is a block that a session had when it was looked at last.
type servedBlock struct {
	tenure           uint64
	allocated, first time.Time // when it got that block, and its first one
}

// firstBlock returns when the slot's session got its first block, as seen from all looks so far.
func (p *player) firstBlock(s *Slot, b *nat.Binding) time.Time {
	has := servedBlock{s.tenure, b.AllocatedAt, b.AllocatedAt}
	if had, ok := p.served[s]; ok && (had.tenure == has.tenure || had.allocated.Equal(has.allocated)) {
		has.first = had.first
	}
	p.served[s] = has
	return has.first
}

// checkMappings compares the mappings of slots with those that the table, and a search for the
// session of each user that got its first block last, say.
func (p *player) checkMappings(seed uint64, line string) {
	p.t.Helper()
	newest := map[string]netip.Addr{}
	since := map[string]time.Time{}
	for inside, s := range p.m.Slots().All() {
		if had, ok := p.served[s]; ok && s.Phase() == Cut {
			had.allocated = time.Time{} // the next block is another one, also if it comes at once
			p.served[s] = had
		}
		b, ok := p.engine.Live("g", inside)
		if !ok || !s.Online() || s.tenure != s.boundTenure || s.over != nil {
			continue
		}
		first := p.firstBlock(s, &b)
		if user := s.Packed().UserName(); !first.Before(since[user]) {
			newest[user], since[user] = inside, first
		}
	}
	at := map[nat.Endpoint]netip.Addr{}
	for inside, s := range p.m.Slots().All() {
		if s.Phase() != Open || !s.Online() || s.tenure != s.boundTenure || s.over != nil || s.stray {
			continue
		}
		var want []nat.Forward
		for m := range p.group.Mappings.From(nat.Endpoint{}) {
			if m.Owner.Inside == inside || m.Owner.UserName != "" && m.Owner.UserName == s.Packed().UserName() && newest[m.Owner.UserName] == inside {
				want = append(want, m.Forward())
				at[m.Outside] = inside
			}
		}
		if got := s.Forwards(); got != nat.NewForwards(want) {
			p.t.Fatalf("seed %d: %s: %v has the mappings%s, want %v", seed, line, inside, throughPorts(got), want)
		}
		if has := p.kernel[inside]; !s.Busy() && has.Forwards != s.Forwards() {
			p.t.Fatalf("seed %d: %s: the kernel has the mappings%s of %v at rest, want%s", seed, line, throughPorts(has.Forwards), inside, throughPorts(s.Forwards()))
		}
	}
	for inside, e := range p.kernel {
		if s := p.m.Slot(inside); s != nil && s.Busy() {
			continue
		}
		for f := range e.Forwards.All() {
			if at[f.Endpoint()] != inside {
				p.t.Fatalf("seed %d: %s: the kernel has %v at %v, whose it is not", seed, line, f.Endpoint(), inside)
			}
		}
	}
}

// check compares slots, work and counts.
func (p *player) check(seed uint64, line string) {
	p.t.Helper()
	out := map[*Slot]int{}
	for _, w := range p.opens {
		if b, _ := p.engine.Live("g", w.Inside); w.Slot.Wanted().Gate == nat.GateOpen && !p.mayOpen(w.Slot, &b) {
			p.t.Fatalf("seed %d: %s: the gate of %v opens for %s with the block of %s", seed, line, w.Inside, w.Slot.Packed().Identity(), b.Identity)
		}
	}
	for _, works := range [][]Work{p.opens, p.closes, p.reaps} {
		for _, w := range works {
			out[w.Slot]++
		}
	}
	for _, w := range p.writes {
		if w.Slot != nil {
			out[w.Slot]++
		}
	}
	busy, online := 0, 0
	var in [Cut + 1]int
	for inside, s := range p.m.Slots().From(p.addr([]string{"0"})) {
		if want := map[bool]int{true: 1}[s.Busy()]; out[s] != want {
			p.t.Fatalf("seed %d: %s: %v has %d pieces of work, and busy is %t", seed, line, inside, out[s], s.Busy())
		}
		busy += out[s]
		if s.Online() {
			online++
		}
		in[s.Phase()]++
		if b, ok := p.engine.Live("g", inside); ok != (s.Phase() != Idle) || ok && !b.Covers(s.block) {
			p.t.Fatalf("seed %d: %s: %v is in phase %d with %v, and the engine has %v, %t", seed, line, inside, s.Phase(), s.block, b.Ports(), ok)
		}
		for _, part := range p.m.Growths().Parts(inside) {
			if s.Phase() != Open || !s.block.Contains(part.Block.Outside, part.Block.First) || !s.block.Contains(part.Block.Outside, part.Block.Last) {
				p.t.Fatalf("seed %d: %s: %v is in phase %d with %v, and new sessions to %v get %v", seed, line, inside, s.Phase(), s.block, part.Remote, part.Block)
			}
		}
		if b, _ := p.engine.Live("g", inside); s.Phase() == Open && s.Online() && !s.Busy() && b.Identity != s.Packed().Identity() {
			p.t.Fatalf("seed %d: %s: %v of %s has the open gate of %s", seed, line, inside, s.Packed().Identity(), b.Identity)
		}
		if open := s.Wanted().Gate == nat.GateOpen; open && s.block == (nat.Block{}) {
			p.t.Fatalf("seed %d: %s: %v is to be open without a block", seed, line, inside)
		}
	}
	p.checkMappings(seed, line)
	if busy != p.m.Busy() || online != p.group.Online() {
		p.t.Fatalf("seed %d: %s: counted %d busy and %d online, there are %d and %d", seed, line, p.m.Busy(), p.group.Online(), busy, online)
	}
	indexed := 0
	for _, o := range p.m.online.origins {
		indexed += o.records
	}
	if listed := len(slices.Collect(p.m.online.From("g", &inspect.SubscriberFilter{}, netip.Addr{}))); indexed != online || listed != online {
		p.t.Fatalf("seed %d: %s: %d are online, by NAS %d, listed %d", seed, line, online, indexed, listed)
	}
	for phase := Saved; phase <= Cut; phase++ {
		if in[phase] != p.group.In(phase) {
			p.t.Fatalf("seed %d: %s: counted %d in phase %d, there are %d", seed, line, p.group.In(phase), phase, in[phase])
		}
	}
}
