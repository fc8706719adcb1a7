package subscriberdb

import (
	"context"
	"log/slog"
	"strings"
	"sync"
)

// lines holds the log lines.
type lines struct {
	mu   sync.Mutex
	kept []slog.Record
}

func (l *lines) logger() *slog.Logger { return slog.New(keeper{l}) }

// with returns the attributes of the lines whose message has the given prefix.
func (l *lines) with(message string) []map[string]any {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []map[string]any
	for _, r := range l.kept {
		if !strings.HasPrefix(r.Message, message) {
			continue
		}
		attrs := map[string]any{}
		r.Attrs(func(a slog.Attr) bool { attrs[a.Key] = a.Value.Any(); return true })
		found = append(found, attrs)
	}
	return found
}

type keeper struct{ lines *lines }

func (keeper) Enabled(context.Context, slog.Level) bool { return true }
func (k keeper) WithAttrs([]slog.Attr) slog.Handler     { return k }
func (k keeper) WithGroup(string) slog.Handler          { return k }

func (k keeper) Handle(_ context.Context, r slog.Record) error {
	k.lines.mu.Lock()
	defer k.lines.mu.Unlock()
	k.lines.kept = append(k.lines.kept, r)
	return nil
}
