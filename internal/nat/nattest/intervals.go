// Package nattest checks the log of a NAT against what it promises, for tests.
package nattest

import (
	"fmt"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
)

// Intervals are the times of blocks, by the events so far. The zero Intervals has none.
type Intervals struct {
	open map[nat.Block]nat.Event
	last map[nat.Block]time.Time // of the latest release
}

// Add takes the next event, in the order of the log. It returns an error if the event gives a port
// a second owner at any time, or releases a block otherwise than it was allocated (LOG-06, LOG-08).
func (x *Intervals) Add(e *nat.Event) error {
	if x.open == nil {
		x.open, x.last = map[nat.Block]nat.Event{}, map[nat.Block]time.Time{}
	}
	switch e.Kind {
	case nat.Allocated:
		for b, had := range x.open {
			if b.Overlaps(e.Block) {
				return fmt.Errorf("%+v while %+v has the port", *e, had)
			}
		}
		for b, at := range x.last {
			if b.Overlaps(e.Block) && e.At.Before(at) {
				return fmt.Errorf("%+v, although it was released at %v", *e, at)
			}
		}
		x.open[e.Block] = *e
	case nat.Released:
		had, ok := x.open[e.Block]
		if !ok || !had.At.Equal(e.Since) || e.At.Before(e.Since) || had.Holder.Inside != e.Holder.Inside {
			return fmt.Errorf("%+v, allocated was %+v (%v)", *e, had, ok)
		}
		delete(x.open, e.Block)
		x.last[e.Block] = e.At
	default:
		return fmt.Errorf("%+v is in the log", *e)
	}
	return nil
}

// Open returns the blocks in service, with the events that allocated them.
func (x *Intervals) Open() map[nat.Block]nat.Event { return x.open }
