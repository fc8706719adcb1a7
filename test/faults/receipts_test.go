package faults

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// receipts are the counts of removals that the watch of bindings saw in this round, by inside
// address.
type receipts map[netip.Addr][]int

// note keeps the receipt of a held binding. A binding is seen many times, and removals with
// the same count cannot be told apart: the check is for one with the right count.
func (r receipts) note(row *storedBinding) {
	if row.Held && row.Receipt != nil && !slices.Contains(r[row.Inside], row.Receipt.Deleted) {
		r[row.Inside] = append(r[row.Inside], row.Receipt.Deleted)
	}
}

// countsRight checks the receipts of those that a round ended which disturbed nothing: each
// counts the sessions that the kernel had, without such as may have expired since.
func (w *world) countsRight(ops []op, before map[*line][]time.Time) error {
	if !w.model.removal {
		return nil
	}
	seen := w.holds.takeReceipts()
	for _, o := range ops {
		had, ok := before[o.line]
		ends := o.kind == opStop || o.kind == opDelete || o.kind == opDEL || o.kind == opExpire
		if !ok || !ends || o.line.group == growingGroup || o.line.group == limitedGroup { // whose short sessions come and go
			continue
		}
		least := 0
		for _, expires := range had {
			if expires.After(time.Now()) {
				least++
			}
		}
		got := seen[o.line.inside]
		if !slices.ContainsFunc(got, func(n int) bool { return least <= n && n <= len(had) }) {
			return fmt.Errorf("%s: the receipts of %s count %v sessions, the kernel had %d to %d", o.kind, o.line.inside, got, least, len(had))
		}
		w.report.receipts.Add(1)
	}
	return nil
}
