package lsn

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
)

// model is a simple engine: one group, plain slices, every answer found by a full search.
type model struct {
	config   GroupConfig
	fresh    []nat.Block // never given, in the order in which they will be
	free     []nat.Block // given before, longest free first
	locked   []nat.Block // the content of free when the quarantine began
	embargo  time.Time
	bindings []nat.Binding // in the order of their last changes of state
	line     []nat.Holder

	// Where bindings may grow, the blocks that the engine chose, which take checks.
	chosen []nat.Block
}

func newModel(c GroupConfig) *model {
	return &model{config: c, fresh: blocksInOrder(c)}
}

func blocksInOrder(c GroupConfig) []nat.Block {
	var blocks []nat.Block
	size := c.BlockSize
	for first := 0; first < 1<<16; first += size {
		if first < int(c.FirstPort) || first+size-1 > int(c.LastPort) {
			continue
		}
		for _, p := range c.Outside {
			for a := p.Addr(); p.Contains(a); a = a.Next() {
				blocks = append(blocks, nat.Block{Outside: a, First: nat.Port(first), Last: nat.Port(first + size - 1)})
			}
		}
	}
	return blocks
}

func (m *model) find(match func(nat.Binding) bool) int { return slices.IndexFunc(m.bindings, match) }

func (m *model) live(inside netip.Addr) int {
	return m.find(func(b nat.Binding) bool { return b.Inside == inside && b.State != nat.Held })
}

// at returns the bindings whose outside address begins with an octet.
func (m *model) at(first byte) (all []nat.Binding) {
	for _, b := range m.bindings {
		if b.Outside.As4()[0] == first {
			all = append(all, b)
		}
	}
	return all
}

// gives reports whether the blocks of an outside address are given.
func (m *model) gives(a netip.Addr) bool {
	return slices.ContainsFunc(m.config.Outside, func(p netip.Prefix) bool { return p.Contains(a) })
}

func (m *model) configured(a netip.Addr) bool {
	return slices.ContainsFunc(m.config.AllOutside(), func(p netip.Prefix) bool { return p.Contains(a) })
}

func (m *model) allocate(h nat.Holder, now time.Time) error {
	if !slices.ContainsFunc(m.config.Inside, func(p netip.Prefix) bool { return p.Contains(h.Inside) }) {
		return ErrNotInside
	}
	if m.live(h.Inside) >= 0 {
		return ErrBusy
	}
	if i := m.own(h); i >= 0 {
		b := m.bindings[i]
		m.bindings = slices.Delete(m.bindings, i, i+1)
		m.forget(h.Inside)
		m.bind(b.Blocks, h, now)
		m.bindings[len(m.bindings)-1].GrownAt = b.GrownAt
		return nil
	}
	if i := m.place(h.Inside); i >= 0 {
		m.line[i] = h
		return ErrExhausted
	}
	if len(m.line) == 0 {
		if b, ok := m.take(); ok {
			m.bind(nat.Blocks{Block: b}, h, now)
			return nil
		}
	}
	m.line = append(m.line, h)
	return ErrExhausted
}

func (m *model) own(h nat.Holder) int {
	if h.Identity == "" {
		return -1
	}
	seen := 0
	for i, b := range slices.Backward(m.bindings) {
		if b.Inside != h.Inside || b.State != nat.Held {
			continue
		}
		if seen++; seen > maxReclaim {
			return -1
		}
		if b.Identity == h.Identity && m.gives(b.Outside) {
			return i
		}
	}
	return -1
}

func (m *model) take() (nat.Block, bool) {
	if m.config.grows() && len(m.chosen) > 0 {
		b := m.chosen[0]
		m.chosen = m.chosen[1:]
		for _, other := range m.available() {
			if m.rank(other) < m.rank(b) {
				return nat.Block{}, false
			}
		}
		return b, m.claim(b)
	}
	for _, list := range []*[]nat.Block{&m.fresh, &m.free} {
		if list == &m.fresh && !m.embargo.IsZero() || len(*list) == 0 {
			continue
		}
		b := (*list)[0]
		*list = (*list)[1:]
		return b, true
	}
	return nat.Block{}, false
}

// available returns the blocks that may be given now.
func (m *model) available() []nat.Block {
	if m.embargo.IsZero() {
		return slices.Concat(m.fresh, m.free)
	}
	return m.free
}

// claim removes a block from the available ones, and reports whether it was there.
func (m *model) claim(b nat.Block) bool {
	ok := slices.Contains(m.available(), b)
	m.remove(b)
	return ok
}

// next to a block is the one with the next higher, or lower, ports.
func (m *model) nextTo(b nat.Block, up bool) nat.Block {
	size := nat.Port(m.config.BlockSize)
	if up {
		return nat.Block{Outside: b.Outside, First: b.Last + 1, Last: b.Last + size}
	}
	return nat.Block{Outside: b.Outside, First: b.First - size, Last: b.First - 1}
}

// buddy returns the block with which an aligned one makes an aligned one of twice its size.
func (m *model) buddy(b nat.Block) nat.Block {
	return m.nextTo(b, int(b.First)/m.config.BlockSize%2 == 0)
}

// rank is the loss if a free block is given: none with a free buddy; else one for the block
// itself if it has no free neighbour, and one for each neighbour that would have none.
func (m *model) rank(b nat.Block) int {
	free := func(x nat.Block) bool { return slices.Contains(m.available(), x) }
	if free(m.buddy(b)) {
		return 0
	}
	rank := 1
	if !free(m.nextTo(b, false)) && !free(m.nextTo(b, true)) {
		rank++
	}
	for _, up := range []bool{false, true} {
		x := m.nextTo(b, up)
		grows := m.find(func(y nat.Binding) bool { return y.State != nat.Held && y.Has(x) && y.Len() < m.config.MaxBlocks }) >= 0
		if grows && !free(m.nextTo(x, up)) {
			rank++
		}
	}
	return rank
}

// grow checks the engine's choice for one block more, and makes it.
func (m *model) grow(inside netip.Addr, within nat.Block, now time.Time, got *Growth) error {
	i := m.live(inside)
	switch {
	case i < 0:
		return ErrNoBinding
	case m.bindings[i].State != nat.Active:
		return ErrTransition
	case m.bindings[i].Len() >= m.config.MaxBlocks:
		return ErrMaxBlocks
	case !m.embargo.IsZero(), len(m.line) > 0, !m.configured(within.Outside):
		return ErrExhausted
	}
	b := &m.bindings[i]
	may := slices.DeleteFunc(m.available(), func(x nat.Block) bool { return x.Outside != b.Outside })
	seen := 0
	for _, h := range slices.Backward(m.bindings) {
		if h.Inside != inside || h.State != nat.Held {
			continue
		}
		if seen++; seen <= maxReclaim && h.Identity == b.Identity && b.Identity != "" && h.Len() == 1 && h.Outside == b.Outside {
			may = append(may, h.Block)
		}
	}
	beside := slices.DeleteFunc([]nat.Block{m.nextTo(within, false), m.nextTo(within, true)}, func(x nat.Block) bool { return !slices.Contains(may, x) })
	if len(beside) > 0 {
		may = beside
	}
	if one := within.Size() == m.config.BlockSize; one && slices.Contains(may, m.buddy(within)) {
		may = []nat.Block{m.buddy(within)}
	}
	if len(may) == 0 {
		return ErrExhausted
	}
	if got == nil || !slices.Contains(may, got.Newest()) || got.InPlace() != (len(beside) > 0) && len(beside) > 0 {
		return errors.New("another choice")
	}
	if own := m.find(func(h nat.Binding) bool { return h.State == nat.Held && h.Block == got.Newest() }); own >= 0 {
		if m.bindings[own] != got.Regained {
			return errors.New("another binding ended")
		}
		b.Blocks, _ = b.With(got.Newest())
		b.GrownAt = now
		m.bindings = slices.Delete(m.bindings, own, own+1)
		return nil
	}
	m.remove(got.Newest())
	b.Blocks, _ = b.With(got.Newest())
	b.GrownAt = now
	return nil
}

func (m *model) shrink(inside netip.Addr, now time.Time) error {
	i := m.live(inside)
	switch {
	case i < 0:
		return ErrNoBinding
	case m.bindings[i].State != nat.Active, m.bindings[i].Len() == 1:
		return ErrTransition
	}
	b := &m.bindings[i]
	part := nat.Binding{
		Group: b.Group, Blocks: nat.Blocks{Block: b.Newest()}, Holder: b.Holder, State: nat.Held,
		AllocatedAt: b.GrownAt, ReleasedAt: now, HoldUntil: now.Add(m.config.Hold),
	}
	if b.Blocks = b.Older(); b.Len() == 1 {
		b.GrownAt = time.Time{}
	}
	m.bindings = append(m.bindings, part)
	return nil
}

func (m *model) bind(b nat.Blocks, h nat.Holder, now time.Time) {
	m.bindings = append(m.bindings, nat.Binding{Group: m.config.Name, Blocks: b, Holder: h, State: nat.Active, AllocatedAt: now})
}

func (m *model) place(inside netip.Addr) int {
	return slices.IndexFunc(m.line, func(h nat.Holder) bool { return h.Inside == inside })
}

func (m *model) forget(inside netip.Addr) bool {
	i := m.place(inside)
	if i >= 0 {
		m.line = slices.Delete(m.line, i, i+1)
	}
	return i >= 0
}

func (m *model) transition(inside netip.Addr, to nat.State, now time.Time) error {
	i := m.live(inside)
	if i < 0 {
		return ErrNoBinding
	}
	b := m.bindings[i]
	switch from := b.State; {
	case from == nat.Active && to == nat.Draining:
		b.ReleasedAt = now
	case from == nat.Draining && to == nat.Active:
		b.ReleasedAt = time.Time{}
	case from == nat.Active && to == nat.Cut, from == nat.Draining && to == nat.Cut && b.ReleasedAt.IsZero():
		b.ReleasedAt = now
	case from == nat.Draining && to == nat.Cut:
	case from == nat.Cut && to == nat.Held:
		b.HoldUntil = now.Add(m.config.Hold)
	default:
		return ErrTransition
	}
	b.State = to
	m.bindings = append(slices.Delete(m.bindings, i, i+1), b)
	return nil
}

func (m *model) advance(now time.Time) (freed, served []nat.Binding) {
	if !m.embargo.IsZero() && !now.Before(m.embargo) {
		m.free, m.locked, m.embargo = append(m.locked, m.free...), nil, time.Time{}
	}
	for _, b := range m.bindings {
		if b.State == nat.Held && !now.Before(b.HoldUntil) {
			freed = append(freed, b)
		}
	}
	slices.SortStableFunc(freed, func(a, b nat.Binding) int { return a.HoldUntil.Compare(b.HoldUntil) })
	for _, b := range freed {
		m.bindings = slices.DeleteFunc(m.bindings, func(x nat.Binding) bool { return x.Block == b.Block })
		if m.gives(b.Outside) {
			m.free = slices.AppendSeq(m.free, b.All())
		}
	}
	for len(m.line) > 0 {
		b, ok := m.take()
		if !ok {
			break
		}
		m.bind(nat.Blocks{Block: b}, m.line[0], now)
		m.line = m.line[1:]
		served = append(served, m.bindings[len(m.bindings)-1])
	}
	return freed, served
}

func (m *model) next() (time.Time, bool) {
	if len(m.line) > 0 && (len(m.free) > 0 || m.embargo.IsZero() && len(m.fresh) > 0) {
		return time.Time{}, true
	}
	next := m.embargo
	for _, b := range m.bindings {
		if b.State == nat.Held && (next.IsZero() || b.HoldUntil.Before(next)) {
			next = b.HoldUntil
		}
	}
	return next, !next.IsZero()
}

func (m *model) quarantine(now time.Time) {
	m.locked = append(m.locked, m.free...)
	m.free = nil
	if until := now.Add(m.config.Hold); until.After(m.embargo) {
		m.embargo = until
	}
}

func (m *model) restore(b nat.Binding) error {
	for x := range b.All() {
		if x.First < m.config.FirstPort || x.Last > m.config.LastPort {
			return ErrNotInPool
		}
	}
	for x := range b.All() {
		i := m.find(func(y nat.Binding) bool { return y.Contains(x.Outside, x.First) })
		if i < 0 {
			continue
		}
		if y := m.bindings[i]; y.Blocks == b.Blocks && y.Inside == b.Inside && y.State == b.State && y.Identity == b.Identity {
			return nil
		}
		return ErrConflict
	}
	if !m.configured(b.Outside) {
		return ErrNotInPool
	}
	if b.State != nat.Held {
		if m.live(b.Inside) >= 0 {
			return ErrConflict
		}
		m.forget(b.Inside)
	}
	for x := range b.All() {
		m.remove(x)
	}
	m.bindings = append(m.bindings, b)
	return nil
}

func (m *model) remove(b nat.Block) {
	for _, list := range []*[]nat.Block{&m.fresh, &m.free, &m.locked} {
		*list = slices.DeleteFunc(*list, func(x nat.Block) bool { return x == b })
	}
}

func (m *model) reconfigure(c GroupConfig) {
	given := slices.Concat(m.free, m.locked)
	for _, b := range m.bindings {
		given = slices.AppendSeq(given, b.All())
	}
	m.config = c
	m.fresh = slices.DeleteFunc(blocksInOrder(c), func(b nat.Block) bool { return slices.Contains(given, b) })
	gone := func(b nat.Block) bool { return !m.gives(b.Outside) }
	m.free, m.locked = slices.DeleteFunc(m.free, gone), slices.DeleteFunc(m.locked, gone)
	m.line = slices.DeleteFunc(m.line, func(h nat.Holder) bool {
		return !slices.ContainsFunc(c.Inside, func(p netip.Prefix) bool { return p.Contains(h.Inside) })
	})
}

func (m *model) usage() (used, held, free int) {
	for _, b := range m.bindings {
		if b.State == nat.Held {
			held += b.Len()
		} else {
			used += b.Len()
		}
	}
	free = len(m.free)
	if m.embargo.IsZero() {
		free += len(m.fresh)
	} else {
		held += len(m.fresh) + len(m.locked)
	}
	return used, held, free
}
