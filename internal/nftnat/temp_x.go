package nftnat

import (
	"context"
	"net/netip"
	"slices"
)

func (m *Memory) Learn(ctx context.Context, _ []netip.Addr) error { return ctx.Err() }
func (m *Memory) LearnRest(ctx context.Context) error             { return ctx.Err() }
func (m *Memory) Bare() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.cells) == 0
}
func (m *Memory) Changed() <-chan struct{} { return nil }
func (m *Memory) EntryAt(inside netip.Addr) (Entry, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !inside.Is4() {
		return Entry{Inside: inside}, false
	}
	c, ok := m.cells[inside.As4()]
	return c.entry(inside.As4()), ok
}
func (m *Memory) EntriesFrom(from netip.Addr, n int) ([]Entry, netip.Addr) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(tempAll) != len(m.cells) {
		tempAll = m.cells.entries()
	}
	all := tempAll
	i, _ := slices.BinarySearchFunc(all, from, func(e Entry, a netip.Addr) int { return e.Inside.Compare(a) })
	if from.IsValid() {
		all = all[i:]
	}
	if len(all) > n {
		return all[:n], all[n].Inside
	}
	return all, netip.Addr{}
}

func (k *Kernel) Learn(ctx context.Context, _ []netip.Addr) error { _, err := k.Entries(ctx); return err }
func (k *Kernel) LearnRest(ctx context.Context) error             { _, err := k.Entries(ctx); return err }
func (k *Kernel) Bare() bool                                      { return len(k.shadow) == 0 }
func (k *Kernel) Changed() <-chan struct{}                        { return nil }
func (k *Kernel) EntryAt(inside netip.Addr) (Entry, bool) {
	_ = k.take(context.Background())
	defer k.give()
	c, ok := k.shadow[inside.As4()]
	return c.entry(inside.As4()), ok
}
func (k *Kernel) EntriesFrom(from netip.Addr, n int) ([]Entry, netip.Addr) {
	_ = k.take(context.Background())
	defer k.give()
	all := k.shadow.entries()
	i, _ := slices.BinarySearchFunc(all, from, func(e Entry, a netip.Addr) int { return e.Inside.Compare(a) })
	if from.IsValid() {
		all = all[i:]
	}
	if len(all) > n {
		return all[:n], all[n].Inside
	}
	return all, netip.Addr{}
}

var tempAll []Entry
