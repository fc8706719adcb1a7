package lsn

// none is the reference to no lease, waiter or cell: number 0 of each slice is
// not one of them, so that the zero value of an index means absence.
const none = 0

// The first cells of a group are the heads of its two lists, not blocks.
const (
	freeList   = iota // blocks that were given before and are free, longest free first
	quarantine        // free blocks that nobody may get yet
	listHeads
)

// cellKind is what a block is to its group.
type cellKind uint8

const (
	cellFresh       cellKind = iota // never given, or of a retired segment and without holder
	cellFree                        // in the free list
	cellQuarantined                 // in the quarantine list
	cellLeased                      // belongs to a lease
)

// cell is one block: a member of a circular, doubly linked list, or leased.
type cell struct {
	prev, next uint32 // next is the lease when leased
	kind       cellKind
}

func leasedCell(lease uint32) cell { return cell{next: lease, kind: cellLeased} }

func (c *cell) lease() uint32 { return c.next }

// newCells returns n fresh cells behind two empty lists.
func newCells(n uint32) []cell {
	cells := make([]cell, listHeads+n)
	cells[quarantine] = cell{prev: quarantine, next: quarantine}
	return cells
}

// pushCell puts a cell at the back of a list.
func pushCell(cells []cell, list, c uint32, kind cellKind) {
	last := cells[list].prev
	cells[c] = cell{prev: last, next: list, kind: kind}
	cells[last].next = c
	cells[list].prev = c
}

// unlinkCell takes a cell out of the list it is in.
func unlinkCell(cells []cell, c uint32) {
	prev, next := cells[c].prev, cells[c].next
	cells[prev].next = next
	cells[next].prev = prev
}

// spliceFront moves all cells of one list before those of another.
func spliceFront(cells []cell, from, to uint32) {
	first, last := cells[from].next, cells[from].prev
	if first == from {
		return
	}
	next := cells[to].next
	cells[to].next, cells[first].prev = first, to
	cells[last].next, cells[next].prev = next, last
	cells[from] = cell{prev: from, next: from}
}
