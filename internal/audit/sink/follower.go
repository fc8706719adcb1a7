package sink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/sessiond/sessiond/internal/audit"
	"github.com/sessiond/sessiond/internal/clock"
	"github.com/sessiond/sessiond/internal/subscriber"
)

const (
	lookEvery  = 500 * time.Millisecond // between looks for entries
	batchMost  = 256                    // entries that are written at once
	retryAfter = 5 * time.Second        // after an error
	leaveAfter = time.Second            // the most that a write under way holds up a stop
)

// Source has the entries.
type Source interface {
	// Trails returns the names of all trails; with an error only those of the groups in force.
	Trails(ctx context.Context) ([]string, error)

	// End returns the end of a trail as it is now.
	End(ctx context.Context, trail string) (audit.End, error)

	// Behind returns up to limit entries of a trail behind an identifier, "" for the first.
	Behind(ctx context.Context, trail, id string, limit int) ([]audit.Stored, error)

	// Position and SetPosition read and store where a sink has come to.
	Position(ctx context.Context, trail, sink string) (string, error)
	SetPosition(ctx context.Context, trail, sink, position string) error
}

// Writer is a place for entries.
type Writer interface {
	// Write writes entries, all or with an error. It may write some twice after an error.
	Write(ctx context.Context, entries []Line) error
	Close() error
}

// Line is an entry to be written.
type Line struct {
	At   time.Time
	Text string // JSON without a line break
}

// Options configure a Follower. All are required.
type Options struct {
	Name   string // of the sink and the daemon, such as "file:cgn1"
	Source Source
	Writer Writer
	Lost   func(entries int) // called for entries that were removed before they were written
	Logger *slog.Logger
}

// Follower copies the entries of all trails to one sink.
type Follower struct {
	o      Options
	places map[string]place
}

// place is the last entry of a trail that was written.
type place struct {
	id         string
	number     uint64 // of the last entry that could be read
	unreadable uint64 // entries since, which are copied without their numbers
}

// firstID is before the identifiers of all entries.
const firstID = "0-0"

// String has no unreadable entries: behind a restart they count as lost.
func (p place) String() string { return p.id + " " + strconv.FormatUint(p.number, 10) }

// parsePlace is the reverse of String.
func parsePlace(text string) (p place, ok bool) {
	id, digits, _ := strings.Cut(text, " ")
	n, err := strconv.ParseUint(digits, 10, 64)
	return place{id: id, number: n}, err == nil && id != ""
}

// within reports whether a trail with the given end has the place. One that is behind it is of
// another trail: Redis was emptied since, or came back from a backup.
func (p place) within(end *audit.End) bool {
	return p.id == firstID || end.ID != "" && subscriber.CompareVersions(p.id, end.ID) <= 0
}

// NewFollower returns a Follower; Run makes it work.
func NewFollower(o Options) *Follower { return &Follower{o: o, places: map[string]place{}} }

// Run copies entries until the context ends. Errors are logged once, and retried. A write that
// does not return, as to a file of a server that is away, is left behind: its entries come
// again after the next start.
func (f *Follower) Run(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.follow(ctx)
		_ = f.o.Writer.Close()
	}()
	<-ctx.Done()
	late := time.NewTimer(leaveAfter)
	defer late.Stop()
	select {
	case <-done:
	case <-late.C:
		f.o.Logger.Warn("an audit sink does not take entries, and is not waited for; they are copied after the next start", "sink", f.o.Name)
	}
	return ctx.Err()
}

// follow copies entries until the context ends.
func (f *Follower) follow(ctx context.Context) {
	for failing := false; ; {
		err := f.copyAll(ctx)
		pause := lookEvery
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			pause = retryAfter
			if !failing {
				f.o.Logger.Warn("audit entries cannot be copied; they stay in Redis, and are copied later", "sink", f.o.Name, "error", err)
			}
		case failing:
			f.o.Logger.Info("audit entries are copied again", "sink", f.o.Name)
		}
		failing = err != nil
		if clock.Sleep(ctx, pause) != nil {
			return
		}
	}
}

// copyAll copies all entries that there are. A trail that cannot be copied holds up no other.
func (f *Follower) copyAll(ctx context.Context) error {
	names, err := f.o.Source.Trails(ctx)
	errs := []error{err}
	for _, trail := range names {
		for more := true; more && ctx.Err() == nil; {
			n, err := f.copySome(ctx, trail)
			if err != nil {
				errs = append(errs, fmt.Errorf("trail %s: %w", trail, err))
			}
			more = n == batchMost && err == nil
		}
	}
	return errors.Join(append(errs, ctx.Err())...)
}

// copySome copies the next entries of a trail, and returns their number.
func (f *Follower) copySome(ctx context.Context, trail string) (int, error) {
	if _, known := f.places[trail]; !known {
		if err := f.settle(ctx, trail); err != nil {
			return 0, err
		}
	}
	last := f.places[trail]
	entries, err := f.o.Source.Behind(ctx, trail, last.id, batchMost)
	if err != nil {
		return 0, err
	}
	if len(entries) == 0 {
		return 0, f.settle(ctx, trail)
	}
	lines, lost := make([]Line, len(entries)), 0
	for i, stored := range entries {
		e, err := audit.ParseEntry(stored.Text)
		if err == nil {
			if next := last.number + last.unreadable + 1; e.Number > next {
				lost += int(e.Number - next)
			}
			last.number, last.unreadable = e.Number, 0
		} else {
			last.unreadable++
		}
		last.id = stored.ID
		lines[i] = Line{e.At, fmt.Sprintf(`{"hash":%q,"entry":%s}`, stored.Hash, oneLine(stored.Text, err))}
	}
	if err := f.o.Writer.Write(ctx, lines); err != nil {
		return 0, err
	}
	f.places[trail] = last
	if lost > 0 {
		f.o.Lost(lost)
		f.o.Logger.Error("audit entries were removed before they were copied", "sink", f.o.Name, "trail", trail, "entries", lost,
			"alarm", "sessiond_audit_sink_lost_total")
	}
	return len(entries), f.o.Source.SetPosition(ctx, trail, f.o.Name, last.String())
}

// settle makes sure that the place in a trail is one of this trail: else it is the stored one,
// or, of a trail that is new to the sink, the beginning. A sink that begins has lost no entry
// that was removed before.
func (f *Follower) settle(ctx context.Context, trail string) error {
	end, err := f.o.Source.End(ctx, trail)
	if err != nil {
		return err
	}
	now, known := f.places[trail]
	was := now
	if !known || !now.within(&end) {
		text, err := f.o.Source.Position(ctx, trail, f.o.Name)
		if err != nil {
			return err
		}
		stored, ok := parsePlace(text)
		if now = stored; !ok || !stored.within(&end) {
			now = place{id: firstID, number: end.Removed}
		}
		if known || ok && now != stored {
			f.o.Logger.Warn("an audit trail ends before the last entry that was copied, as after a loss of Redis's data; it is copied from an earlier place", "sink", f.o.Name, "trail", trail)
		}
		was = stored
	}
	if now.number > end.Number {
		now.number, now.unreadable = end.Removed, 0
	}
	f.places[trail] = now
	if now == was {
		return nil
	}
	return f.o.Source.SetPosition(ctx, trail, f.o.Name, now.String())
}

// oneLine returns the text of an entry as it is, or, where it is none of ours, as a string.
func oneLine(text string, unreadable error) string {
	if unreadable != nil || strings.ContainsAny(text, "\r\n") {
		return strconv.QuoteToASCII(text)
	}
	return text
}
