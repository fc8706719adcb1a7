package session

import (
	"context"
	"testing"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// rows returns the stored bindings.
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

// rowsTwice is a store whose walk over the bindings also yields former versions
// of rows, as a Redis scan may.
type rowsTwice struct {
	Store
	before []subscriberdb.BindingRow
}

func (s *rowsTwice) BindingRows(ctx context.Context, group string, yield func([]subscriberdb.BindingRow) error) error {
	if err := yield(s.before); err != nil {
		return err
	}
	if err := s.Store.BindingRows(ctx, group, yield); err != nil {
		return err
	}
	return yield(s.before)
}

// TestRowSeenTwice_NAT40: a walk may yield a row twice, in its former and its
// present version. Only the present version counts, so a former binding of
// another holder is no difference.
func TestRowSeenTwice_NAT40(t *testing.T) {
	store := &rowsTwice{}
	w := newWorld(t, testGroup, func(w *world) {
		w.store = func(db *subscriberdb.DB) Store { store.Store = db; return store }
	})
	w.send(subscriber.EventStart, alice, "a", "1")
	active := w.awaitState(alice, nat.Active)
	w.reconcile(t)
	for name, change := range map[string]func(*nat.Binding){
		"another's":            func(b *nat.Binding) { b.Inside, b.UserName = bob, "b" },
		"in a block now free":  func(b *nat.Binding) { b.Outside = b.Outside.Next() },
		"in its quarantine":    func(b *nat.Binding) { b.State = nat.Held },
		"with more ports then": func(b *nat.Binding) { b.Last += 512 },
	} {
		ours := active.Binding
		once := ours
		change(&once)
		save := func(put []nat.Binding, remove ...nat.Place) {
			if err := w.db.SaveBindings(t.Context(), w.group.Name, put, remove); err != nil {
				t.Fatal(err)
			}
		}
		save([]nat.Binding{once})
		store.before = w.rows()
		save(nil, once.Place())
		save([]nat.Binding{ours})
		if drifts, err := w.Reconcile(t.Context(), true); err != nil || len(drifts) > 0 {
			t.Errorf("%s: drifts %+v, %v", name, drifts, err)
		}
	}
}
