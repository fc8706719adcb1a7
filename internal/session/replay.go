package session

import (
	"context"
	"errors"
	"fmt"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lifecycle"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// errLeft says that the reader of a watch has left.
var errLeft = errors.New("the watcher has left")

// feedReplay makes events of the changes in feeds, for one watcher.
type feedReplay struct {
	*eventWatches
	watch *inspect.Watch
	at    inspect.Position // behind the last event

	// records are the records of whole changes, by which partial ones are completed.
	records map[subscriber.Key]subscriber.Record
}

// recordsMost bounds the records that a replay remembers.
const recordsMost = 10_000

// run yields the events of parts of feeds. Its error is inspect.ErrListAgain if a feed has
// lost some, or an event cannot be filtered; errLeft if the reader left.
func (r *feedReplay) run(ctx context.Context, ways []feedWay, yield func(inspect.Message, error) bool) error {
	r.records = map[subscriber.Key]subscriber.Record{}
	for _, way := range ways {
		if err := r.feed(ctx, way, yield); err != nil {
			return err
		}
	}
	return nil
}

// feed yields the events of a part of one feed.
func (r *feedReplay) feed(ctx context.Context, way feedWay, yield func(inspect.Message, error) bool) error {
	group, after := way.from.Group, way.from.Entry.String()
	if n := way.from.Changes; n > 0 {
		changes, err := r.read(ctx, func() ([]subscriber.Change, string, error) {
			changes, err := r.store.FeedEntry(ctx, group, after)
			return changes, after, err
		}, &after)
		if err != nil {
			return err
		}
		if err := r.tell(changes[min(n, len(changes)):], n, way, yield); err != nil {
			return err
		}
	}
	for subscriber.ParseVersion(after).Compare(way.to.Entry) < 0 {
		changes, err := r.read(ctx, func() ([]subscriber.Change, string, error) {
			return r.store.Feed(ctx, group, after, feedBatch, 0, nil)
		}, &after)
		if err != nil {
			return err
		}
		if err := r.tell(changes, 0, way, yield); err != nil {
			return err
		}
	}
	return nil
}

// read reads a feed when it is its turn, and sets after to the last entry that it read.
func (r *feedReplay) read(ctx context.Context, read func() ([]subscriber.Change, string, error), after *string) ([]subscriber.Change, error) {
	select {
	case r.reads <- struct{}{}:
	case <-ctx.Done():
		return nil, errLeft
	}
	defer func() { <-r.reads }()
	changes, last, err := read()
	switch {
	case errors.Is(err, subscriberdb.ErrFeedGap):
		return nil, fmt.Errorf("%w: %w", inspect.ErrListAgain, err)
	case ctx.Err() != nil:
		return nil, errLeft
	case err != nil:
		return nil, unavailable(err)
	case last == *after && len(changes) == 0:
		return nil, fmt.Errorf("%w: the feed ends before the position that was taken", inspect.ErrListAgain)
	}
	*after = last
	return changes, nil
}

// tell yields the events of changes up to the end of the way. told is the number of changes
// of the first entry that were told before.
func (r *feedReplay) tell(changes []subscriber.Change, told int, way feedWay, yield func(inspect.Message, error) bool) error {
	place := way.from
	place.Changes = told
	for i := range changes {
		c := &changes[i]
		if c.ID.Compare(way.to.Entry) > 0 {
			return nil
		}
		if c.ID != place.Entry {
			place.Entry, place.Changes = c.ID, 0
		}
		place.Changes++
		if err := r.one(c, place, yield); err != nil {
			return err
		}
	}
	return nil
}

var changeEvents = map[subscriber.ChangeKind]inspect.EventKind{
	subscriber.Created: inspect.EventCreated, subscriber.Updated: inspect.EventUpdated, subscriber.Deleted: inspect.EventDeleted,
}

// one yields the event of one change, if the watch is for it.
func (r *feedReplay) one(c *subscriber.Change, behind inspect.FeedPosition, yield func(inspect.Message, error) bool) error {
	record, whole := r.complete(c)
	if !whole && r.watch.Kinds.Has(changeEvents[c.Kind]) {
		f := r.watch.Filter
		known := inspect.SubscriberFilter{Group: f.Group, Inside: f.Inside}
		if f != known && known.Match(&record) {
			return fmt.Errorf("%w: the feed does not say whose record at %s changed", inspect.ErrListAgain, record.Inside)
		}
	}
	e := inspect.Event{At: c.ID.Time(), Kind: changeEvents[c.Kind], End: c.End, Subscriber: inspect.Subscriber{Record: record}}
	feeds := inspect.FeedPositions{Shared: r.at.Feeds, Own: behind}
	r.at.Feeds = feeds.List()
	if !r.watch.Match(&e) {
		return nil
	}
	if !yield(inspect.Message{Notice: inspect.NewNotice(e, r.at)}, nil) {
		return errLeft
	}
	return nil
}

// complete returns the record after a change, and whether all of its fields are known. The
// feed has only the new fields in a partial change.
func (r *feedReplay) complete(c *subscriber.Change) (subscriber.Record, bool) {
	key := c.Record.Key()
	record := c.Record.Record()
	whole := !c.Partial
	if c.Partial {
		if base, known, all := r.base(key, c); known {
			fresh := base.Pack()
			fresh.Refresh(&c.Record)
			record, whole = fresh.Record(), all
		}
	}
	switch {
	case c.Kind == subscriber.Deleted:
		delete(r.records, key)
	case !c.Partial:
		if len(r.records) >= recordsMost {
			clear(r.records)
		}
		r.records[key] = record
	}
	return record, whole
}

// base returns the record of the session that a partial change is about, as far as it is
// known: from an earlier change, from the slot, or from a binding of its session, which has
// no NAS.
func (r *feedReplay) base(key subscriber.Key, c *subscriber.Change) (base subscriber.Record, known, all bool) {
	if base, known = r.records[key]; known {
		return base, true, true
	}
	updated := c.Record.Record().UpdatedAt
	r.mu.RLock()
	defer r.mu.RUnlock()
	if s := r.life.Slot(key.Inside); s != nil && s.Group() == key.Group {
		if base = s.Record(); s.Online() && c.Kind == subscriber.Updated && !base.StartedAt.After(updated) {
			return base, true, true
		}
		if ended, _, _, ok := s.Ended(); ok && c.Kind == subscriber.Deleted {
			if base = ended.Record(); base.NAS != "" && !base.StartedAt.After(updated) {
				return base, true, true
			}
		}
	}
	at := c.ID.Time()
	r.life.Engine().BindingsFrom(key.Group, key.Inside, 1, func(b nat.Binding) {
		if b.Inside == key.Inside && !b.AllocatedAt.After(at) && (b.ReleasedAt.IsZero() || !b.ReleasedAt.Before(at)) {
			base, known = lifecycle.HolderRecord(key.Group, b.Holder), true
		}
	})
	return base, known, false
}
