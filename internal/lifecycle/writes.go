package lifecycle

import (
	"net/netip"

	"github.com/sessiond/sessiond/internal/nat"
)

// PendingWrites counts the writes to stored bindings that are under way.
type PendingWrites struct{ blocks map[nat.Block]int }

func newPendingWrites() PendingWrites { return PendingWrites{map[nat.Block]int{}} }

func (w *PendingWrites) begin(b nat.Block) { w.blocks[b]++ }

func (w *PendingWrites) end(b nat.Block) {
	if n := w.blocks[b]; n > 1 {
		w.blocks[b] = n - 1
	} else {
		delete(w.blocks, b)
	}
}

// Len counts the bindings with a write under way.
func (w *PendingWrites) Len() int { return len(w.blocks) }

// Of counts the writes under way to the stored binding of a block.
func (w *PendingWrites) Of(b nat.Block) int { return w.blocks[b] }

// In reports whether a write is under way to a binding at an outside address
// that the function selects.
func (w *PendingWrites) In(contains func(outside netip.Addr) bool) bool {
	for b := range w.blocks {
		if contains(b.Outside) {
			return true
		}
	}
	return false
}
