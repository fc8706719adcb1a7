package natlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/sessiond/sessiond/internal/clock"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriberdb/bindings"
)

const (
	followEvery = 250 * time.Millisecond // between looks for events
	followRetry = 5 * time.Second        // after an error
	followMost  = 64                     // entries of the log that are read at once
	tellEvery   = time.Minute            // between reports of a position that stays
)

// Log is the log of the NAT of all groups, in the database.
type Log interface {
	// TellLogPosition reports the position of a reader, from which on the log is kept for it.
	TellLogPosition(ctx context.Context, group, reader string, p bindings.LogPosition) error

	// NATLog returns the events behind a position; bindings.ErrLogGap if it cannot.
	NATLog(ctx context.Context, group string, after bindings.LogPosition, max int, block time.Duration) ([]nat.Event, bindings.LogPosition, error)

	// NATLogEnd returns the end of a group's log.
	NATLogEnd(ctx context.Context, group string) (bindings.LogState, error)

	// NATLive yields an Allocated event of each block in service, and returns the position
	// behind which the log goes on. bindings.ErrLogNotWhole: it cannot yet.
	NATLive(ctx context.Context, group string, yield func([]nat.Event) error) (bindings.LogPosition, error)
}

// Destination takes the logs of groups: a Sink, or a history. One Follower calls it.
type Destination interface {
	// Position returns the position behind what was taken of a group, "" for nothing.
	Position(group string) (string, error)

	// Append takes events, durably with the position behind them. After an error it is called
	// again with the same.
	Append(group, position string, events []nat.Event) error

	// Begin takes the blocks in service, and the position from which on the log is followed: the
	// group is new, or its log did not lead on from where it was followed to.
	Begin(group, position string, live Live) error

	// AtEnd is told that the log was read to its end at a time: nothing is behind the last
	// Append. It may take the blocks in service, for interims.
	AtEnd(group string, at time.Time, live Live) error
}

// Live yields an Allocated event of each block in service, in no order. Some of the events behind
// the position may be among them.
type Live func(yield func([]nat.Event) error) error

// FollowerOptions are those of a Follower. All are required.
type FollowerOptions struct {
	Name   string // of the reader, unique in the database
	Log    Log
	To     Destination
	Groups func() []string    // that are served now
	Gap    func(group string) // called when events of a group were missed
	Now    func() time.Time
	Logger *slog.Logger
}

// Follower reads the log of the NAT into a Destination.
type Follower struct {
	o      FollowerOptions
	groups map[string]*followed
}

// followed is the progress in one group's log.
type followed struct {
	at     bindings.LogPosition // zero: none yet
	told   time.Time            // when the position was reported
	missed bool                 // the log does not lead on from the position, and that was told
}

// NewFollower returns a Follower; Run makes it work.
func NewFollower(o FollowerOptions) *Follower {
	return &Follower{o: o, groups: map[string]*followed{}}
}

// Run follows until the context ends, and then returns nil. Errors are logged once in a row,
// and what failed is tried again: nothing is lost as long as the database keeps the log.
func (f *Follower) Run(ctx context.Context) error {
	for failing := false; ctx.Err() == nil; {
		err := f.look(ctx)
		pause := followEvery
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			pause = followRetry
			if !failing {
				f.o.Logger.Warn("the NAT log cannot be followed for now; it is kept in Redis", "reader", f.o.Name, "error", err)
			}
		case failing:
			f.o.Logger.Info("the NAT log is followed again", "reader", f.o.Name)
		}
		failing = err != nil
		_ = clock.Sleep(ctx, pause)
	}
	return nil
}

// look reads all events that there are, of each group some at a time. A group that fails holds
// up no other.
func (f *Follower) look(ctx context.Context) error {
	var errs []error
	for waiting := f.o.Groups(); len(waiting) > 0 && ctx.Err() == nil; {
		var again []string
		for _, group := range waiting {
			switch more, err := f.readSome(ctx, group); {
			case errors.Is(err, bindings.ErrLogNotWhole): // of a daemon that starts
			case err != nil:
				errs = append(errs, fmt.Errorf("group %q: %w", group, err))
			case more:
				again = append(again, group)
			}
		}
		waiting = again
	}
	return errors.Join(errs...)
}

// readSome reads the next events of a group, and reports whether there may be more.
func (f *Follower) readSome(ctx context.Context, group string) (more bool, err error) {
	g, err := f.progress(group)
	if err != nil {
		return false, err
	}
	now := f.o.Now()
	events, next, err := f.o.Log.NATLog(ctx, group, g.at, followMost, 0)
	switch {
	case errors.Is(err, bindings.ErrLogGap):
		if g.at != (bindings.LogPosition{}) && !g.missed {
			f.o.Logger.Error("events of the NAT log were missed; the blocks in service are told instead", "reader", f.o.Name, "group", group, "error", err)
			f.o.Gap(group)
			g.missed = true
		}
		return true, f.begin(ctx, group, g)
	case err != nil:
		return false, err
	case next != g.at:
		if err := f.o.To.Append(group, next.String(), events); err != nil {
			return false, err
		}
		g.at = next
		return true, f.tell(ctx, group, g)
	case now.Sub(g.told) >= tellEvery:
		if err := f.tell(ctx, group, g); err != nil {
			return false, err
		}
	}
	return false, f.o.To.AtEnd(group, now, f.live(ctx, group))
}

// live returns the blocks in service of a group.
func (f *Follower) live(ctx context.Context, group string) Live {
	return func(yield func([]nat.Event) error) error {
		_, err := f.o.Log.NATLive(ctx, group, yield)
		return err
	}
}

// progress returns the progress in a group's log, as the destination has stored it.
func (f *Follower) progress(group string) (*followed, error) {
	if g := f.groups[group]; g != nil {
		return g, nil
	}
	text, err := f.o.To.Position(group)
	if err != nil {
		return nil, err
	}
	g := &followed{}
	if text != "" {
		if g.at, err = bindings.ParseLogPosition(text); err != nil {
			return nil, err
		}
	}
	f.groups[group] = g
	return g, nil
}

func (f *Follower) tell(ctx context.Context, group string, g *followed) error {
	if err := f.o.Log.TellLogPosition(ctx, group, f.o.Name, g.at); err != nil {
		return err
	}
	g.told = f.o.Now()
	return nil
}

// begin tells the blocks in service, and follows the log from here on: there is no position, or the
// log does not lead on from it. The reader joins before it asks for the blocks, so that the log is
// kept meanwhile.
func (f *Follower) begin(ctx context.Context, group string, g *followed) error {
	end, err := f.o.Log.NATLogEnd(ctx, group)
	if err != nil {
		return err
	}
	if !end.Whole {
		return bindings.ErrLogNotWhole
	}
	if err := f.o.Log.TellLogPosition(ctx, group, f.o.Name, end.LogPosition); err != nil {
		return err
	}
	if err := f.o.To.Begin(group, end.LogPosition.String(), f.live(ctx, group)); err != nil {
		return err
	}
	g.at, g.told, g.missed = end.LogPosition, f.o.Now(), false
	return nil
}
