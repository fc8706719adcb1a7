package lsn

// heldLeases are places for held leases, by number. They grow by a page and are never
// moved: where a NAS with a million subscribers restarts, a slice would be copied dozens
// of times, each time under its owner's lock and with both copies in memory. Place 0
// refers to nothing and is there from the first add on.
type heldLeases struct {
	pages []*heldPage
	len   uint32 // places that were ever added
}

// heldPage has 16 KiB.
type heldPage [1 << heldPageBits]heldLease

const heldPageBits = 7

// newHeldLeases has place 0 already, which is nobody's: see none.
func newHeldLeases() heldLeases {
	var h heldLeases
	h.add()
	return h
}

// at returns the place of a number that add returned.
func (h *heldLeases) at(i uint32) *heldLease {
	return &h.pages[i>>heldPageBits][i&(1<<heldPageBits-1)]
}

// add makes one more place, which is the zero lease, and returns its number.
func (h *heldLeases) add() uint32 {
	if int(h.len>>heldPageBits) == len(h.pages) {
		h.pages = append(h.pages, new(heldPage))
	}
	h.len++
	return h.len - 1
}

// all yields the places by their numbers.
func (h *heldLeases) all(yield func(uint32, *heldLease) bool) {
	for i := range h.len {
		if !yield(i, h.at(i)) {
			return
		}
	}
}
