package keeper

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"github.com/sessiond/sessiond/internal/history"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/natlog"
	"github.com/sessiond/sessiond/internal/subscriberdb/bindings"
)

// late is the time by which an event may be in the log later than it says: its binding was stored
// meanwhile. The history ends so long before the time at which the log was read to its end.
const late = time.Second

// intake is the history as the destination of a follower.
type intake struct{ *Keeper }

// Position implements natlog.Destination.
func (i intake) Position(group string) (string, error) {
	p, ok := i.Progress(group)
	if !ok {
		return "", nil
	}
	return p.Epoch + "/" + p.Position, nil
}

// entryOf returns a position as the history has it, without the epoch.
func entryOf(p bindings.LogPosition) string {
	return p.Entry + "/" + strconv.FormatUint(p.Events, 10)
}

// Append implements natlog.Destination.
func (i intake) Append(group, position string, events []nat.Event) error {
	p, err := bindings.ParseLogPosition(position)
	if err != nil {
		return err
	}
	err = i.Store.Append(history.Batch{Group: group, Epoch: p.Epoch, Entries: []history.Entry{{Position: entryOf(p), Events: events}}})
	return i.wrote(group, events, err)
}

// Begin implements natlog.Destination: the history begins, or goes on behind a gap. The blocks are
// read one after the other, so those that were allocated or released meanwhile may be among them or
// not; the gap is to the end of the reading, and the log tells these again.
func (i intake) Begin(group, position string, live natlog.Live) error {
	p, err := bindings.ParseLogPosition(position)
	if err != nil {
		return err
	}
	r := history.Restart{Group: group, Epoch: p.Epoch, Position: entryOf(p)}
	if known, ok := i.Progress(group); ok {
		r.From, r.Reason = known.Through, "the database lost the NAT log, or is another one"
		if known.Epoch == p.Epoch {
			r.Reason = "the NAT log was removed before it was read, or the database went back in time"
		}
	}
	err = live(func(blocks []nat.Event) error {
		r.Live = append(r.Live, blocks...)
		return nil
	})
	if err != nil {
		return err
	}
	r.To, r.Live = i.o.Now(), newest(r.Live)
	for n := range r.Live {
		r.Live[n].AsInterim(r.To)
	}
	return i.wrote(group, r.Live, i.Resume(r))
}

// newest leaves one event of each block, the newest: a block may be read twice.
func newest(list []nat.Event) []nat.Event {
	slices.SortFunc(list, func(a, b nat.Event) int {
		return cmp.Or(a.Outside.Compare(b.Outside), cmp.Compare(a.First, b.First), cmp.Compare(a.Last, b.Last), b.At.Compare(a.At))
	})
	return slices.CompactFunc(list, func(a, b nat.Event) bool { return a.Block == b.Block })
}

// AtEnd implements natlog.Destination.
func (i intake) AtEnd(group string, at time.Time, live natlog.Live) error {
	known, ok := i.Progress(group)
	if !ok {
		return nil
	}
	b := history.Batch{Group: group, Epoch: known.Epoch, Through: at.Add(-late)}
	if err := i.wrote(group, nil, i.Store.Append(b)); err != nil {
		return err
	}
	switch since := at.Sub(i.compared[group]); {
	case i.compared[group].IsZero(): // the log was followed to here
		i.compared[group] = at
		return nil
	case since < i.o.Interim && since >= -time.Minute: // since < 0: the clock was ahead
		return nil
	}
	err := live(func(blocks []nat.Event) error {
		for n := range blocks {
			blocks[n].AsInterim(at)
		}
		b.Entries = []history.Entry{{Events: blocks}}
		return i.wrote(group, nil, i.Store.Append(b))
	})
	if err == nil {
		i.compared[group] = at
	}
	return err
}
