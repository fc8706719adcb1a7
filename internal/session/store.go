package session

import (
	"context"

	"github.com/sessiond/sessiond/internal/lifecycle"
	"github.com/sessiond/sessiond/internal/nat"
)

// bindingStore writes and removes stored bindings.
type bindingStore interface {
	SaveBindings(ctx context.Context, group string, put []nat.Binding, remove []nat.Place) error
}

// runSaves writes bindings to the database, many in one round trip.
func (x *executors) runSaves(ctx context.Context) error {
	byGroup := map[string]*writes{}
	for batch := []lifecycle.Write(nil); ; {
		var err error
		if batch, err = x.saves.Dequeue(ctx, batch); err != nil {
			return err
		}
		x.coalesce(batch, byGroup)
		for name, w := range byGroup {
			if w.none() {
				continue
			}
			err := x.health.Retry(ctx, "store bindings", func(ctx context.Context) error {
				if err := x.leases.Check(ctx, name); err != nil {
					return err
				}
				return x.store.SaveBindings(ctx, name, w.put, w.remove)
			})
			if err != nil {
				return err
			}
		}
		x.saved(batch)
		if err := gatherMore(ctx, len(batch)); err != nil {
			return err
		}
	}
}

// keepMost is the largest batch of writes, and the capacity that is kept for
// smaller ones.
const keepMost = 4096

// writes are the writes to the stored bindings of one group.
type writes struct {
	put    []nat.Binding
	remove []nat.Place
}

func (w *writes) none() bool { return len(w.put)+len(w.remove) == 0 }

// reset empties the writes, and keeps their memory unless it is far larger than
// was used.
func (w *writes) reset() {
	if cap(w.put) > max(keepMost, 4*len(w.put)) {
		*w = writes{}
	}
	clear(w.put)
	w.put, w.remove = w.put[:0], w.remove[:0]
}

func (w *writes) add(s *lifecycle.Write) {
	if s.Remove {
		w.remove = append(w.remove, s.Binding.Place())
		return
	}
	w.put = append(w.put, s.Binding)
}

// coalesce replaces the writes of the previous batch, by group, by the last
// write of each block in this one.
func (x *executors) coalesce(batch []lifecycle.Write, byGroup map[string]*writes) {
	for _, w := range byGroup {
		w.reset()
	}
	last := x.repeated(batch)
	for i := range batch {
		s := &batch[i]
		if n, ok := last[s.Binding.Block]; ok && n != i {
			continue
		}
		w := byGroup[s.Binding.Group]
		if w == nil {
			w = &writes{}
			byGroup[s.Binding.Group] = w
		}
		w.add(s)
	}
}

// repeated returns, for each block with more than one write under way, the
// index of its last write in the batch.
func (x *executors) repeated(batch []lifecycle.Write) map[nat.Block]int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var last map[nat.Block]int
	for i := range batch {
		if block := batch[i].Binding.Block; x.life.Writes().Of(block) > 1 {
			if last == nil {
				last = map[nat.Block]int{}
			}
			last[block] = i
		}
	}
	return last
}

func (x *executors) saved(batch []lifecycle.Write) {
	x.mu.Lock()
	defer x.mu.Unlock()
	now := x.now()
	for i := range batch {
		x.life.Stored(&batch[i], now)
	}
	x.settleLocked()
}
