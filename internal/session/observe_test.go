package session

import (
	"context"
	"slices"
	"testing"

	"github.com/sessiond/sessiond/internal/drift"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// rows returns the stored bindings as they stand now.
func (w *world) rows() (all []subscriberdb.BindingRow) {
	w.t.Helper()
	err := w.db.BindingRows(context.Background(), w.group.Name, func(rows []subscriberdb.BindingRow) error {
		all = append(all, rows...)
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// TestRowSeenTwice_NAT40: a walk may yield a row twice, as it was and as it is. The
// last look counts: no binding is both as it should be and another's.
func TestRowSeenTwice_NAT40(t *testing.T) {
	w := newWorld(t, testGroup)
	w.send(subscriber.EventStart, alice, "a", "1")
	active := w.awaitState(alice, lsn.Active)
	stored := storedBinding(&active.Binding, nil)
	w.halt()
	ours := w.rows()
	stored.Inside, stored.UserName = bob, "b"
	if err := w.db.SaveBindings(context.Background(), w.group.Name, []subscriberdb.Binding{stored}, nil); err != nil {
		t.Fatal(err)
	}
	others := w.rows()
	for _, last := range [][]subscriberdb.BindingRow{ours, others} {
		o := &observation{stored: map[lsn.Block]subscriberdb.Binding{}, storedSo: map[lsn.Block]struct{}{}}
		for _, row := range slices.Concat(ours, others, last) {
			w.observeRowRLocked(w.groups[w.group.Name], o, &row)
		}
		if len(o.stored)+len(o.storedSo) != 1 {
			t.Errorf("%d bindings are as they should be, others are stored: %v", len(o.storedSo), o.stored)
		}
	}
}

// TestStaleRowOfBlockInUse_NAT40: a row that was found to be nobody's is not removed
// once another subscriber has got the block.
func TestStaleRowOfBlockInUse_NAT40(t *testing.T) {
	w := newWorld(t, testGroup)
	w.send(subscriber.EventStart, alice, "a", "1")
	block := w.awaitState(alice, lsn.Active).Block
	w.halt()
	r := repair{group: w.groups[w.group.Name]}
	w.mendLocked(&r, &drift.Operation{Kind: inspect.DriftBindingStale, Inside: bob, Block: block})
	if slices.ContainsFunc(w.saves.items, func(s save) bool { return s.remove }) {
		t.Error("the row of the binding in force is removed")
	}
}
