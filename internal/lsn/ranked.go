package lsn

// In a group whose bindings may grow, a subscriber's first block is chosen so that blocks
// keep free neighbours: a binding then grows where it is. Blocks 2n and 2n+1 are buddies. A
// free block's rank says how much is lost if somebody else gets it: nothing with rankPair,
// where its buddy is free too. Else each neighbour counts that could grow into this block
// alone, and the block itself if nobody could grow from it.
const (
	rankPair = iota
	rankAlone
	ranks = rankAlone + 4
)

// rankedCells are free cells, by rank. Those of a rank are in the order in which they came
// to it.
type rankedCells struct {
	g     *group
	lists [ranks]struct{ first, last uint32 }
	links []cellLink // by cell
	len   int
	order []uint16 // of the blocks of an address, see cellInOrder
	pairs uint32   // the first of order: one of each two buddies
}

// cellLink is a place in a list of rankedCells.
type cellLink struct {
	prev, next uint32
	in         uint8 // one more than the rank; 0 is in no list
}

func newRankedCells(g *group) *rankedCells {
	r := &rankedCells{g: g, links: make([]cellLink, len(g.owners))}
	r.order, r.pairs = orderOfNumbers(&g.shape)
	return r
}

// has reports whether a cell is in a list.
func (r *rankedCells) has(c uint32) bool { return r.links[c].in != 0 }

// push adds a cell at the end of its rank's list.
func (r *rankedCells) push(c uint32, rank int) {
	l := &r.lists[rank]
	r.links[c] = cellLink{prev: l.last, in: uint8(rank + 1)}
	if l.last == none {
		l.first = c
	} else {
		r.links[l.last].next = c
	}
	l.last = c
	r.len++
}

// remove takes a cell out of its list.
func (r *rankedCells) remove(c uint32) {
	x := r.links[c]
	l := &r.lists[x.in-1]
	if x.prev == none {
		l.first = x.next
	} else {
		r.links[x.prev].next = x.next
	}
	if x.next == none {
		l.last = x.prev
	} else {
		r.links[x.next].prev = x.prev
	}
	r.links[c] = cellLink{}
	r.len--
}

// all yields the cells, by rank. Its body may remove the cell that it got.
func (r *rankedCells) all(yield func(uint32) bool) {
	for i := range r.lists {
		for c := r.lists[i].first; c != none; {
			next := r.links[c].next
			if !yield(c) {
				return
			}
			c = next
		}
	}
}

// orderOfNumbers returns the order in which an address's blocks are given for the first
// time, and how many come first: one of each two buddies.
func orderOfNumbers(sh *blockLayout) (order []uint16, pairs uint32) {
	for odd := range uint32(2) {
		for i := range sh.count {
			if (sh.first+i)&1 == odd {
				order = append(order, uint16(i))
			}
		}
		if odd == 0 {
			pairs = uint32(len(order))
		}
	}
	return order, pairs
}

// number returns the number of a cell's block.
func (s *poolPrefix) number(sh *blockLayout, c uint32) uint32 { return sh.first + (c-s.base)%sh.count }

// beside returns the cell of the block with another number on the same outside address.
func (s *poolPrefix) beside(sh *blockLayout, c, number uint32) (uint32, bool) {
	if number < sh.first || number >= sh.first+sh.count {
		return none, false
	}
	return c - s.number(sh, c) + number, true
}

// isFree reports whether a cell of a group with ranked cells may be given now.
func (r *rankedCells) isFree(s *poolPrefix, c uint32) bool {
	return r.has(c) || r.g.owners[c] == fresh && !s.retired && !r.g.embargoed
}

// isFreeAt is isFree for the block with a number, which may not exist.
func (r *rankedCells) isFreeAt(s *poolPrefix, c, number uint32) bool {
	x, ok := s.beside(&r.g.shape, c, number)
	return ok && r.isFree(s, x)
}

// rank returns the present rank of a free cell.
func (r *rankedCells) rank(s *poolPrefix, c uint32) int {
	n := s.number(&r.g.shape, c)
	if r.isFreeAt(s, c, n^1) {
		return rankPair
	}
	rank := rankAlone
	if !r.isFreeAt(s, c, n-1) && !r.isFreeAt(s, c, n+1) {
		rank++
	}
	if r.mayGrowAt(s, c, n-1) && !r.isFreeAt(s, c, n-2) {
		rank++
	}
	if r.mayGrowAt(s, c, n+1) && !r.isFreeAt(s, c, n+2) {
		rank++
	}
	return rank
}

// mayGrowAt reports whether the block with a number is of a live binding that may get more.
func (r *rankedCells) mayGrowAt(s *poolPrefix, c, number uint32) bool {
	x, ok := s.beside(&r.g.shape, c, number)
	if !ok || r.g.owners[x] == fresh {
		return false
	}
	owner := r.g.subscribers.at(r.g.owners[x])
	return owner.live() && r.g.has(owner.cell, x) && r.g.count(owner.cell) < r.g.config.MaxBlocks
}

// freed puts a cell behind the free ones of its rank, or of all; in deterministic mode it
// becomes fresh.
func (g *group) freed(c uint32) {
	if g.config.Deterministic {
		g.freedOwn(c)
		return
	}
	s := g.segmentOf(c)
	s.idle++
	if g.ranked == nil {
		g.free.Push(c)
		return
	}
	g.ranked.push(c, g.ranked.rank(s, c))
	g.ranked.rerankAround(s, c)
}

// changed records that a lease has begun, ended its life, grown or shrunk.
func (g *group) changed(first uint32) {
	if g.ranked == nil {
		return
	}
	s := g.segmentOf(first)
	g.ranked.taken(s, first)
	for _, c := range g.further(first) {
		g.ranked.taken(s, c)
	}
}

// taken takes a cell out of the free ones, if it is there, and ranks those around it.
func (r *rankedCells) taken(s *poolPrefix, c uint32) {
	if r.has(c) {
		r.remove(c)
		s.idle--
	}
	r.rerankAround(s, c)
}

// rerankAround puts free cells near one that changed into the lists of their new ranks.
func (r *rankedCells) rerankAround(s *poolPrefix, c uint32) {
	n := s.number(&r.g.shape, c)
	for _, near := range [...]uint32{n - 2, n - 1, n + 1, n + 2} {
		x, ok := s.beside(&r.g.shape, c, near)
		if !ok || !r.has(x) {
			continue
		}
		if rank := r.rank(s, x); r.links[x].in != uint8(rank+1) {
			r.remove(x)
			r.push(x, rank)
		}
	}
}

// next returns the free cell to be given next, or none. The caller gives it.
func (r *rankedCells) next() uint32 {
	for rank := range ranks {
		if c := r.freshUpTo(rank); c != none {
			return c
		}
		c := r.lists[rank].first
		if c == none {
			continue
		}
		s := r.g.segmentOf(c)
		if lower, ok := s.beside(&r.g.shape, c, s.number(&r.g.shape, c)&^1); ok && rank == rankPair {
			return lower
		}
		return c
	}
	return none
}

// freshUpTo returns the next cell that was never given and has at most a rank. It lists
// those of a higher rank that it meets.
func (r *rankedCells) freshUpTo(rank int) uint32 {
	if r.g.embargoed {
		return none
	}
	for ; r.g.level < r.g.shape.count && (r.g.level < r.pairs || rank > rankPair); r.g.level++ {
		for ; r.g.turn < uint32(len(r.g.segments)); r.g.turn++ {
			s := &r.g.segments[r.g.turn]
			for c := r.g.freshIn(s); c != none; c = r.g.freshIn(s) {
				if r.rank(s, c) <= rank {
					return c
				}
				r.g.freed(c)
			}
		}
		r.g.turn = 0
	}
	return none
}

// freeCells yields the cells that were given before and are free.
func (g *group) freeCells(yield func(uint32) bool) {
	if g.ranked != nil {
		g.ranked.all(yield)
		return
	}
	for _, c := range g.free.All() {
		if !yield(c) {
			return
		}
	}
}

// restart frees the quarantined cells after an embargo. Which blocks are free has
// changed, so it ranks all of them anew, those from the quarantine first.
func (r *rankedCells) restart() {
	again := r.g.quarantined
	for c := range r.all {
		again = append(again, c)
		r.remove(c)
		r.g.segmentOf(c).idle--
	}
	for _, c := range again {
		r.g.freed(c)
	}
}
