package faults

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// guardMinimum is the number of unrequested removals that pass at once. The window is
// short, so that the deletions of a round are not a wave.
const guardMinimum = 10

const guardConfig = "minimum: 10, removed: 0%, window: 1s"

// massDeletion deletes all records of a group at once but keeps the database's marker (DEL-13). Some
// removals pass; the guard holds all others, whose flows must continue, until they are
// refused.
func (w *world) massDeletion(ctx context.Context) error {
	w.holds.setBehind(true)
	defer w.holds.setBehind(false)
	var lines []*line
	var keys []string
	for _, l := range w.model.lines {
		if l.online != nil && l.group == defaultGroup {
			lines, keys = append(lines, l), append(keys, l.key())
		}
	}
	if len(lines) <= guardMinimum {
		return nil
	}
	if err := w.tick(ctx); err != nil {
		return err
	}
	w.note("all %d records deleted", len(keys))
	if err := w.db.Del(ctx, keys...).Err(); err != nil {
		return err
	}
	ended, err := w.judged(ctx, lines)
	if err != nil {
		return err
	}
	if len(ended) > guardMinimum {
		return fmt.Errorf("%d of %d were ended at once, the guard allows %d (DEL-13)", len(ended), len(lines), guardMinimum)
	}
	for l := range ended {
		l.lapse()
	}
	if err := errors.Join(w.dropFlows(ended), w.probeInnocent(ended, false)); err != nil {
		return fmt.Errorf("while removals are held: %w", err)
	}
	if _, err := w.Daemon.Ctl(ctx, "removal", "refuse", "--inside", "0.0.0.0/0", "--yes"); err != nil {
		return err
	}
	return w.settle(ctx, nil)
}

// judged waits until each of the lines is held or has ended, and returns those that ended.
func (w *world) judged(ctx context.Context, lines []*line) (map[*line]bool, error) {
	ended := map[*line]bool{}
	err := w.Until(ctx, "the guard to judge", func() (bool, error) {
		s, err := w.look(ctx)
		if err != nil {
			return false, err
		}
		live := (&comparison{world: w, s: s}).live()
		clear(ended)
		undecided := slices.ContainsFunc(lines, func(l *line) bool {
			if _, stands := s.records[l.inside]; stands {
				return false
			}
			ended[l] = true
			b, bound := live[l.inside]
			return bound && b.is("ACTIVE")
		})
		if undecided {
			return false, nil
		}
		out, err := w.Daemon.Ctl(ctx, "-o", "json", "removal", "list", "--kind", "held")
		return strings.Count(out, "\n") == len(lines)-len(ended), err
	})
	return ended, err
}
