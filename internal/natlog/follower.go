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

// FollowerOptions are those of a Follower. All are required.
type FollowerOptions struct {
	Name    string // of the reader, unique in the database
	Log     Log
	Sink    *Sink
	Groups  func() []string    // that are served now
	Interim time.Duration      // after it, each block in service is told again
	Gap     func(group string) // called when events of a group were missed
	Now     func() time.Time   // the clock of interims
	Logger  *slog.Logger
}

// Follower reads the log of the NAT into a Sink.
type Follower struct {
	o      FollowerOptions
	groups map[string]*followed
}

// followed is the progress in one group's log.
type followed struct {
	at      bindings.LogPosition // zero: none yet
	told    time.Time            // when the position was reported
	interim time.Time            // when the blocks in service were told last
	missed  bool                 // the log does not lead on from the position, and that was told
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

// readSome reads the next events of a group into the sink, and reports whether there may be more.
func (f *Follower) readSome(ctx context.Context, group string) (more bool, err error) {
	g, err := f.progress(group)
	if err != nil {
		return false, err
	}
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
		if err := f.o.Sink.Append(group, next.String(), events); err != nil {
			return false, err
		}
		g.at, more = next, true
		err = f.tell(ctx, group, g)
	case f.o.Now().Sub(g.told) >= tellEvery:
		err = f.tell(ctx, group, g)
	}
	if err == nil && f.interimIsDue(g) {
		err = f.tellLive(ctx, group, g, nat.Interim)
	}
	return more, err
}

// interimIsDue reports whether the blocks in service are to be told again. While the collector is
// away they are not: they would take the room of events that nobody tells again.
func (f *Follower) interimIsDue(g *followed) bool {
	since := f.o.Now().Sub(g.interim)
	return (since >= f.o.Interim || since < -time.Minute) && !f.o.Sink.failing() // since < 0: the clock was ahead
}

// progress returns the progress in a group's log, as the sink has stored it.
func (f *Follower) progress(group string) (*followed, error) {
	if g := f.groups[group]; g != nil {
		return g, nil
	}
	text, err := f.o.Sink.Position(group)
	if err != nil {
		return nil, err
	}
	g := &followed{}
	if text != "" {
		if g.at, err = bindings.ParseLogPosition(text); err != nil {
			return nil, err
		}
	}
	if text, err = f.o.Sink.Position(interimKey(group)); err != nil {
		return nil, err
	}
	g.interim, _ = time.Parse(time.RFC3339, text) // the zero time if it was not stored
	f.groups[group] = g
	return g, nil
}

// interimKey is the key of the time of a group's last interims among the sink's positions. No
// group has a name with a space.
func interimKey(group string) string { return "interim " + group }

func (f *Follower) tell(ctx context.Context, group string, g *followed) error {
	if err := f.o.Log.TellLogPosition(ctx, group, f.o.Name, g.at); err != nil {
		return err
	}
	g.told = f.o.Now()
	return nil
}

// begin tells the blocks in service, and follows the log from here on: there is no position, or the
// log does not lead on from it. The reader joins before it asks for the blocks, so that the log is
// kept meanwhile; some of the events behind may repeat a block.
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
	kind := nat.Interim
	if g.at == (bindings.LogPosition{}) {
		kind = nat.Allocated // the collector is new
	}
	if err := f.tellLive(ctx, group, g, kind); err != nil {
		return err
	}
	if err := f.o.Sink.Append(group, end.LogPosition.String(), nil); err != nil {
		return err
	}
	g.at, g.told, g.missed = end.LogPosition, f.o.Now(), false
	return nil
}

// tellLive appends an event of a kind, Interim or Allocated, of each block in service.
func (f *Follower) tellLive(ctx context.Context, group string, g *followed, kind nat.EventKind) error {
	now := f.o.Now()
	_, err := f.o.Log.NATLive(ctx, group, func(blocks []nat.Event) error {
		for i := 0; i < len(blocks) && kind == nat.Interim; i++ {
			b := &blocks[i]
			b.Kind, b.Since, b.At = nat.Interim, b.At, latest(now, b.At)
		}
		return f.o.Sink.append(group, blocks)
	})
	if err != nil {
		return err
	}
	if err := f.o.Sink.Append(interimKey(group), now.Format(time.RFC3339), nil); err != nil {
		return err
	}
	g.interim = now
	return nil
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
