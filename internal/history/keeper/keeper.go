// Package keeper keeps the history of a running daemon: it reads the NAT logs into the store,
// completes files and removes old ones, and signs a checkpoint each day. Nothing of NAT or RADIUS
// waits for it: while it cannot write, the logs are kept in Redis.
package keeper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sessiond/sessiond/internal/clock"
	"github.com/sessiond/sessiond/internal/history"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/natlog"
)

// upkeepEvery is the interval of the upkeep of files, and of looks for checkpoints that are due.
const upkeepEvery = time.Minute

// republished is the age up to which a start publishes checkpoints of files once more.
const republished = 48 * time.Hour

// Options are those of a Keeper. All are required.
type Options struct {
	Store  *history.Store
	Log    natlog.Log
	Reader string          // name among the readers of the logs, unique in the database
	Groups func() []string // that are served now

	// Quarantine returns that of a freed block of a group, as it is now; 0 for an unknown group.
	Quarantine func(group string) time.Duration

	// Interim is the interval at which the blocks in service are compared with the history: one
	// that it does not know is added.
	Interim time.Duration

	// Publish keeps a signed checkpoint of a group's history elsewhere. After an error it is
	// called again.
	Publish func(ctx context.Context, group, checkpoint string) error

	PublicKey string // of the checkpoints

	Now    func() time.Time
	Logger *slog.Logger
}

// Keeper keeps a history. Its methods may be called concurrently, and those of its Store too.
type Keeper struct {
	*history.Store
	o        Options
	compared map[string]time.Time // with the blocks in service, by group; of the follower alone

	mu     sync.Mutex
	stats  Stats
	failed map[string]error // of the last write of groups
	upkeep error            // of the last upkeep
}

// Stats are figures since the start.
type Stats struct {
	Records map[string]uint64    // events that were stored, by kind
	Gaps    map[string]uint64    // times that events were missed, by group
	Through map[string]time.Time // everything until then is in the history, by group
	Octets  uint64               // of all files
	Err     error                // why the history is not kept as it should; nil if it is
}

// New returns a Keeper; Run makes it work. It has the methods of the Store.
func New(o Options) *Keeper {
	return &Keeper{
		Store: o.Store, o: o,
		stats:  Stats{Records: map[string]uint64{}, Gaps: map[string]uint64{}},
		failed: map[string]error{}, compared: map[string]time.Time{},
	}
}

// Run keeps the history until the context ends, and then returns nil. What fails is tried again.
func (k *Keeper) Run(ctx context.Context) error {
	follower := natlog.NewFollower(natlog.FollowerOptions{
		Name: k.o.Reader, Log: k.o.Log, To: intake{k}, Groups: k.o.Groups, Gap: k.missed, Now: k.o.Now, Logger: k.o.Logger,
	})
	tasks, ctx := errgroup.WithContext(ctx)
	tasks.Go(func() error { return follower.Run(ctx) })
	tasks.Go(func() error { return k.maintain(ctx) })
	return tasks.Wait()
}

// maintain completes and removes files, and signs, until the context ends.
func (k *Keeper) maintain(ctx context.Context) error {
	s := newSignatures()
	for failing := false; ctx.Err() == nil; {
		err := k.Maintain(k.o.Now())
		if e := k.sign(ctx, s); err == nil {
			err = e
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !failing:
			k.o.Logger.Error("the files of the history cannot be kept in order for now", "error", err, "alarm", "sessiond_history_up")
		case err == nil && failing:
			k.o.Logger.Info("the files of the history are in order again")
		}
		failing = err != nil
		k.mu.Lock()
		k.upkeep = err
		k.mu.Unlock()
		_, _ = clock.SleepOr(ctx, upkeepEvery, k.Completed())
	}
	return nil
}

// signatures has the progress of the checkpoints.
type signatures struct {
	done        map[string]time.Time // day of the last one of a group
	unpublished map[string]string    // signed, and not yet kept elsewhere
	files       map[string]uint64    // number of the last day's file of a group whose checkpoint is kept elsewhere
}

func newSignatures() *signatures {
	return &signatures{done: map[string]time.Time{}, unpublished: map[string]string{}, files: map[string]uint64{}}
}

// sign signs a checkpoint of each group at the start, and when a day (UTC) begins, and publishes
// it. So it does with those of completed files.
func (k *Keeper) sign(ctx context.Context, s *signatures) error {
	var errs []error
	for _, group := range k.Groups() {
		errs = append(errs, k.signGroup(ctx, s, group))
	}
	return errors.Join(errs...)
}

func (k *Keeper) signGroup(ctx context.Context, s *signatures, group string) error {
	day := k.o.Now().UTC().Truncate(24 * time.Hour)
	if s.done[group] != day {
		note, err := k.Checkpoint(group)
		if err != nil {
			return err
		}
		s.done[group], s.unpublished[group] = day, note
		k.o.Logger.Info("history checkpoint", "group", group, "checkpoint", note)
	}
	if note := s.unpublished[group]; note != "" {
		if err := k.publish(ctx, group, note); err != nil {
			return err
		}
		delete(s.unpublished, group)
	}
	return k.publishFiles(ctx, s, group)
}

// publishFiles publishes the checkpoints of a group's completed files: of all since the last one, and
// after a start of those whose publication it may have interrupted.
func (k *Keeper) publishFiles(ctx context.Context, s *signatures, group string) error {
	var since time.Time
	after, ok := s.files[group]
	if !ok {
		since = k.o.Now().Add(-republished)
	}
	list, err := k.DayCheckpoints(group, after, since)
	if err != nil {
		return err
	}
	for _, c := range list {
		if err := k.publish(ctx, group, c.Note); err != nil {
			return err
		}
		s.files[group] = c.File
	}
	return nil
}

func (k *Keeper) publish(ctx context.Context, group, note string) error {
	if err := k.o.Publish(ctx, group, note); err != nil {
		return fmt.Errorf("publish the checkpoint of group %q: %w", group, err)
	}
	return nil
}

// missed counts a gap.
func (k *Keeper) missed(group string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stats.Gaps[group]++
}

// wrote notes the outcome of a write of a group, of events of some kinds.
func (k *Keeper) wrote(group string, events []nat.Event, err error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err != nil {
		if k.failed[group] == nil {
			k.o.Logger.Error("the history of a group cannot be written for now; its NAT log is kept in Redis",
				"group", group, "error", err, "alarm", "sessiond_history_up")
		}
		k.failed[group] = err
		return err
	}
	delete(k.failed, group)
	for i := range events {
		k.stats.Records[events[i].Kind.String()]++
	}
	return nil
}

// Stats returns the figures.
func (k *Keeper) Stats() Stats {
	octets, err := k.Octets()
	through := map[string]time.Time{}
	for _, group := range k.Groups() {
		if p, ok := k.Progress(group); ok {
			through[group] = p.Through
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	s := Stats{Records: maps.Clone(k.stats.Records), Gaps: maps.Clone(k.stats.Gaps), Through: through, Octets: uint64(octets), Err: k.upkeep}
	for _, e := range k.failed {
		err = e
	}
	if err != nil {
		s.Err = err
	}
	return s
}

// PublicKey returns the key by which checkpoints and proofs are verified.
func (k *Keeper) PublicKey() string { return k.o.PublicKey }

// LookupOutside is that of the Store, with the quarantine of the last holder's group. "Nobody" is
// unknown where a group is served whose history has not begun.
func (k *Keeper) LookupOutside(q history.Question) (history.Answer, error) {
	a, err := k.Store.LookupOutside(q)
	if err != nil || a.State != history.Nobody {
		return a, err
	}
	if group, ok := k.notBegun(q.Group); ok {
		return history.Answer{State: history.Unknown, Because: history.CauseNoGroup, Detail: fmt.Sprintf("the history of group %q has not begun", group)}, nil
	}
	if a.LastKnown {
		left := a.Record.Released
		if !a.Record.ReleasedBy.IsZero() {
			left = a.Record.ReleasedBy
		}
		a.Quarantined = q.At.Before(left.Add(k.o.Quarantine(a.Record.Group)))
	}
	return a, nil
}

// notBegun returns a group that is served and has no history yet, of one or of all.
func (k *Keeper) notBegun(group string) (name string, ok bool) {
	for _, name := range k.o.Groups() {
		if _, begun := k.Progress(name); !begun && (group == "" || group == name) {
			return name, true
		}
	}
	return "", false
}
