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
)

const (
	lookEvery  = 500 * time.Millisecond // between looks for entries
	batchMost  = 256                    // entries that are written at once
	retryAfter = 5 * time.Second        // after an error
)

// Source has the entries.
type Source interface {
	// Trails returns the names of all trails; with an error only those of the groups in force.
	Trails(ctx context.Context) ([]string, error)

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
	Lost   func(entries int) // called for entries that retention removed before they were written
	Logger *slog.Logger
}

// Follower copies the entries of all trails to one sink.
type Follower struct {
	o      Options
	places map[string]place
}

// place is the last entry of a trail that was written.
type place struct {
	id     string
	number uint64
}

func (p place) String() string { return p.id + " " + strconv.FormatUint(p.number, 10) }

// parsePlace is the reverse of String; any other text is the beginning.
func parsePlace(text string) place {
	id, digits, _ := strings.Cut(text, " ")
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return place{}
	}
	return place{id, n}
}

// NewFollower returns a Follower; Run makes it work.
func NewFollower(o Options) *Follower { return &Follower{o: o, places: map[string]place{}} }

// Run copies entries until the context ends. Errors are logged once, and retried.
func (f *Follower) Run(ctx context.Context) error {
	defer func() { _ = f.o.Writer.Close() }()
	for failing := false; ; {
		err := f.copyAll(ctx)
		pause := lookEvery
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			pause = retryAfter
			if !failing {
				f.o.Logger.Warn("audit entries cannot be copied; they stay in Redis, and are copied later", "sink", f.o.Name, "error", err)
			}
		case failing:
			f.o.Logger.Info("audit entries are copied again", "sink", f.o.Name)
		}
		failing = err != nil
		if err := clock.Sleep(ctx, pause); err != nil {
			return err
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
	last, known := f.places[trail]
	if !known {
		text, err := f.o.Source.Position(ctx, trail, f.o.Name)
		if err != nil {
			return 0, err
		}
		last = parsePlace(text)
	}
	entries, err := f.o.Source.Behind(ctx, trail, last.id, batchMost)
	if err != nil {
		return 0, err
	}
	f.places[trail] = last
	if len(entries) == 0 {
		return 0, nil
	}
	lines, lost := make([]Line, len(entries)), 0
	for i, stored := range entries {
		e, err := audit.ParseEntry(stored.Text)
		if err == nil {
			if last.number > 0 && e.Number > last.number+1 {
				lost += int(e.Number - last.number - 1)
			}
			last.number = e.Number
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

// oneLine returns the text of an entry as it is, or, where it is none of ours, as a string.
func oneLine(text string, unreadable error) string {
	if unreadable != nil || strings.ContainsAny(text, "\r\n") {
		return strconv.QuoteToASCII(text)
	}
	return text
}
