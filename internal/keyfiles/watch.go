package keyfiles

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/sessiond/sessiond/internal/clock"
)

// Interval is the time between two Looks at files. A change takes two.
const Interval = 500 * time.Millisecond

// LookAll looks at files, logs what becomes of those that changed, and reports whether other
// contents are in force.
func LookAll(sets []*Set, log *slog.Logger) bool {
	found := false
	for _, set := range sets {
		changed, err := set.Look()
		switch {
		case err != nil:
			log.Error("changed files cannot be used, and what they held before stays in force", "files", set.String(), "error", err,
				"alarm", "sessiond_key_files_last_reload_successful")
		case changed:
			log.Info("changed files are in force", "files", set.String())
		}
		found = found || changed
	}
	return found
}

// Watch puts files in force when they change, until ctx ends. usable is called after each look,
// with whether all contents can be used.
func Watch(ctx context.Context, log *slog.Logger, usable func(bool), sets ...*Set) {
	for clock.Sleep(ctx, Interval) == nil {
		LookAll(sets, log)
		usable(!slices.ContainsFunc(sets, (*Set).Refused))
	}
}
