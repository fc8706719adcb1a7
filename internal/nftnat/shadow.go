package nftnat

import (
	"encoding/binary"
	"net/netip"
	"sync"

	"github.com/sessiond/sessiond/internal/addrrange"
	"github.com/sessiond/sessiond/internal/addrtable"
	"github.com/sessiond/sessiond/internal/nat"
)

// shadow holds the known elements of the gate and block maps. Only the holder of the turn to
// program changes it; it may be read at any time.
//
// An address without a cell has no elements if the shadow is complete, and is unknown
// otherwise. A cell that is not sure is the state at the last look-up.
type shadow struct {
	mu       sync.RWMutex
	cells    addrtable.Table[held]
	gates    int // elements of the gate map in the cells
	blocks   int // elements of the block map in the cells
	unsure   int // cells that are not sure
	complete bool
	used     usedBlocks // of addresses whose mappings are not deleted yet
	static   staticElements
}

// held is 12 octets long, for there is one for each subscriber.
type held struct {
	cell
	sure bool
}

// at returns the known cell of an address.
func (s *shadow) at(inside address) cell {
	s.mu.RLock()
	defer s.mu.RUnlock()
	h, _ := s.cells.At(inside.addr())
	return h.cell
}

// entryAt is at, as an entry.
func (s *shadow) entryAt(inside netip.Addr) (nat.Entry, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	h, ok := s.cells.At(inside)
	if ok = ok && h.cell != (cell{}); ok || s.static.inside.Len() > 0 && inside.Is4() {
		e := h.entry(inside.As4())
		e.Forwards = s.static.forwards(inside.As4())
		if ok || e.Forwards != (nat.Forwards{}) {
			return e, true
		}
	}
	return nat.Entry{}, false
}

// entriesFrom lists up to n entries from an address on, besides those that have mappings and
// nothing else, and returns the address to go on with: the zero address at the end.
func (s *shadow) entriesFrom(from netip.Addr, n int) (entries []nat.Entry, next netip.Addr) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	entries = make([]nat.Entry, 0, min(n, s.cells.Len()))
	for inside, h := range s.cells.From(from) {
		if h.cell == (cell{}) {
			continue
		}
		if len(entries) == n {
			return s.addForwards(entries, from, inside), inside
		}
		entries = append(entries, h.entry(inside.As4()))
	}
	return s.addForwards(entries, from, netip.Addr{}), netip.Addr{}
}

// len returns the number of addresses with a cell.
func (s *shadow) len() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.cells.Len()
}

// sizes returns the numbers of elements of each map in the cells.
func (s *shadow) sizes() (gates, blocks int) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.gates, s.blocks
}

// doubts returns the number of cells that are not sure.
func (s *shadow) doubts() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.unsure
}

// exact reports whether the shadow has all elements of the kernel, and knows each for sure.
func (s *shadow) exact() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.complete && s.unsure == 0
}

// unsureOf appends to dst those of the addresses whose elements are not known. An address that
// is not IPv4 has none.
func (s *shadow) unsureOf(dst []address, list []netip.Addr) []address {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.complete && s.unsure == 0 {
		return dst
	}
	for _, a := range list {
		if !a.Is4() {
			continue
		}
		if h, ok := s.cells.At(a); ok && !h.sure || !ok && !s.complete {
			dst = append(dst, a.As4())
		}
	}
	return dst
}

// sure reports whether the elements of an address are known.
func (s *shadow) sure(inside address) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	h, ok := s.cells.At(inside.addr())
	return ok && h.sure || !ok && s.complete
}

// unknownIn lists up to n addresses in some ranges that have no sure cell, and returns the
// rest of the ranges behind them.
func (s *shadow) unknownIn(ranges addrrange.Set, n int) (list []address, rest addrrange.Set) {
	const walked = 100_000 // addresses a call passes at most
	s.mu.RLock()
	defer s.mu.RUnlock()
	for passed := 0; len(ranges) > 0; ranges = ranges[1:] {
		for at, last := uint64(ranges[0].First), uint64(ranges[0].Last); at <= last; at++ {
			if len(list) == n || passed == walked {
				return list, append(addrrange.Set{{First: uint32(at), Last: uint32(last)}}, ranges[1:]...)
			}
			passed++
			var inside address
			binary.BigEndian.PutUint32(inside[:], uint32(at))
			if h, ok := s.cells.At(inside.addr()); !ok || !h.sure {
				list = append(list, inside)
			}
		}
	}
	return list, nil
}

// nextCells lists up to n addresses with a cell, from an address on: only unsure ones, unless
// all is set. It returns the address to go on with, the zero address at the end.
func (s *shadow) nextCells(from netip.Addr, n int, all bool) (list []address, next netip.Addr) {
	const walked = 100_000 // the most cells that one call passes
	s.mu.RLock()
	defer s.mu.RUnlock()
	passed := 0
	for inside, h := range s.cells.From(from) {
		if len(list) == n || passed == walked {
			return list, inside
		}
		if passed++; all || !h.sure {
			list = append(list, inside.As4())
		}
	}
	return list, netip.Addr{}
}

// set records the elements that an address has for sure.
func (s *shadow) set(inside address, c cell) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setLocked(inside, c)
}

func (s *shadow) setLocked(inside address, c cell) {
	a := inside.addr()
	if at := s.cells.Place(a); at != nil {
		s.countLocked(*at, -1)
		if at.block != c.block {
			s.used.add(inside, at.block)
		}
		if c != (cell{}) {
			*at = held{c, true}
			s.countLocked(*at, 1)
			return
		}
		s.cells.Remove(a)
		return
	}
	if c != (cell{}) {
		s.cells.Put(a, held{c, true})
		s.countLocked(held{c, true}, 1)
	}
}

func (s *shadow) countLocked(h held, by int) {
	if h.gate != nat.GateClosed {
		s.gates += by
	}
	if h.block != (block{}) {
		s.blocks += by
	}
	if !h.sure {
		s.unsure += by
	}
}

// suspect makes an address unsure.
func (s *shadow) suspect(inside address) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := inside.addr()
	at := s.cells.Place(a)
	switch {
	case at == nil:
		s.cells.Put(a, held{})
		s.unsure++
	case at.sure:
		at.sure = false
		s.unsure++
	}
}

// suspectAll makes all cells unsure.
func (s *shadow) suspectAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.complete = false
	for inside := range s.cells.From(netip.Addr{}) {
		s.cells.Place(inside).sure = false
	}
	s.unsure = s.cells.Len()
}

func (s *shadow) setComplete(complete bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.complete = complete
}

// reset makes the shadow empty: complete for empty maps, not complete for unknown ones.
func (s *shadow) reset(complete bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cells, s.gates, s.blocks, s.unsure, s.complete = addrtable.Table[held]{}, 0, 0, 0, complete
}

// agrees reports whether maps of these sizes hold only known elements.
func (s *shadow) agrees(gates, blocks int) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.unsure == 0 && s.gates == gates && s.blocks == blocks
}

// settled records that the cells are all elements of the kernel, and sure.
func (s *shadow) settled() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.complete = true
	if s.unsure == 0 {
		return
	}
	for inside, h := range s.cells.From(netip.Addr{}) {
		if h.sure {
			continue
		}
		s.setLocked(inside.As4(), h.cell)
	}
}

// record is set for many addresses.
func (s *shadow) record(list []address, cells []cell) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, inside := range list {
		s.setLocked(inside, cells[i])
	}
}
