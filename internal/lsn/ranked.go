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
	lists [ranks]struct{ first, last uint32 }
	links []cellLink // by cell
	len   int
}

// cellLink is a place in a list of rankedCells.
type cellLink struct {
	prev, next uint32
	in         uint8 // one more than the rank; 0 is in no list
}

func newRankedCells(cells int) *rankedCells { return &rankedCells{links: make([]cellLink, cells)} }

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
func (g *group) number(s *poolPrefix, c uint32) uint32 {
	return g.shape.first + (c-s.base)%g.shape.count
}

// beside returns the cell of the block with another number on the same outside address.
func (g *group) beside(s *poolPrefix, c, number uint32) (uint32, bool) {
	if number < g.shape.first || number >= g.shape.first+g.shape.count {
		return none, false
	}
	return c - g.number(s, c) + number, true
}

// isFree reports whether a cell of a group with ranked cells may be given now.
func (g *group) isFree(s *poolPrefix, c uint32) bool {
	return g.ranked.has(c) || g.owners[c] == fresh && !s.retired && !g.embargoed
}

// isFreeAt is isFree for the block with a number, which may not exist.
func (g *group) isFreeAt(s *poolPrefix, c, number uint32) bool {
	x, ok := g.beside(s, c, number)
	return ok && g.isFree(s, x)
}

// rank returns the present rank of a free cell.
func (g *group) rank(s *poolPrefix, c uint32) int {
	n := g.number(s, c)
	if g.isFreeAt(s, c, n^1) {
		return rankPair
	}
	rank := rankAlone
	if !g.isFreeAt(s, c, n-1) && !g.isFreeAt(s, c, n+1) {
		rank++
	}
	if g.mayGrowAt(s, c, n-1) && !g.isFreeAt(s, c, n-2) {
		rank++
	}
	if g.mayGrowAt(s, c, n+1) && !g.isFreeAt(s, c, n+2) {
		rank++
	}
	return rank
}

// mayGrowAt reports whether the block with a number is of a live binding that may get more.
func (g *group) mayGrowAt(s *poolPrefix, c, number uint32) bool {
	x, ok := g.beside(s, c, number)
	if !ok || g.owners[x] == fresh {
		return false
	}
	owner := g.subscribers.at(g.owners[x])
	return owner.live() && g.has(owner.cell, x) && g.count(owner.cell) < g.config.MaxBlocks
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
	g.ranked.push(c, g.rank(s, c))
	g.rerankAround(s, c)
}

// changed records that a lease has begun, ended its life, grown or shrunk.
func (g *group) changed(first uint32) {
	if g.ranked == nil {
		return
	}
	s := g.segmentOf(first)
	g.taken(s, first)
	for _, c := range g.further(first) {
		g.taken(s, c)
	}
}

// taken takes a cell out of the free ones, if it is there, and ranks those around it.
func (g *group) taken(s *poolPrefix, c uint32) {
	if g.ranked.has(c) {
		g.ranked.remove(c)
		s.idle--
	}
	g.rerankAround(s, c)
}

// rerankAround puts free cells near one that changed into the lists of their new ranks.
func (g *group) rerankAround(s *poolPrefix, c uint32) {
	n := g.number(s, c)
	for _, near := range [...]uint32{n - 2, n - 1, n + 1, n + 2} {
		x, ok := g.beside(s, c, near)
		if !ok || !g.ranked.has(x) {
			continue
		}
		if rank := g.rank(s, x); g.ranked.links[x].in != uint8(rank+1) {
			g.ranked.remove(x)
			g.ranked.push(x, rank)
		}
	}
}

// nextRanked returns the free cell to be given next, or none. The caller gives it.
func (g *group) nextRanked() uint32 {
	for rank := range ranks {
		if c := g.freshRanked(rank); c != none {
			return c
		}
		c := g.ranked.lists[rank].first
		if c == none {
			continue
		}
		s := g.segmentOf(c)
		if lower, ok := g.beside(s, c, g.number(s, c)&^1); ok && rank == rankPair {
			return lower
		}
		return c
	}
	return none
}

// freshRanked returns the next cell that was never given and has at most a rank. It lists
// those of a higher rank that it meets.
func (g *group) freshRanked(rank int) uint32 {
	if g.embargoed {
		return none
	}
	for ; g.level < g.shape.count && (g.level < g.pairs || rank > rankPair); g.level++ {
		for ; g.turn < uint32(len(g.segments)); g.turn++ {
			s := &g.segments[g.turn]
			for c := g.freshIn(s); c != none; c = g.freshIn(s) {
				if g.rank(s, c) <= rank {
					return c
				}
				g.freed(c)
			}
		}
		g.turn = 0
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

// releaseRanked frees the quarantined cells after an embargo. Which blocks are free has
// changed, so it ranks all of them anew, those from the quarantine first.
func (g *group) releaseRanked() {
	again := g.quarantined
	for c := range g.ranked.all {
		again = append(again, c)
		g.ranked.remove(c)
		g.segmentOf(c).idle--
	}
	for _, c := range again {
		g.freed(c)
	}
}
