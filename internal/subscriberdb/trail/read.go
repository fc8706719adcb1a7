package trail

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/sessiond/sessiond/internal/audit"
	"github.com/sessiond/sessiond/internal/clock"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
)

const (
	readCount   = 200   // entries of one read
	looksPerAsk = 5_000 // entries that one List examines
)

// ClockMargin is the most by which the clocks of Redis and of the daemons may differ.
const ClockMargin = 10 * time.Minute

// compare orders places as List returns them.
func compare(p, q audit.Place) int {
	return cmp.Or(-subscriber.CompareVersions(p.ID, q.ID), strings.Compare(p.Trail, q.Trail))
}

// listAtOnce is the number of trails that are read at once: those whose server is away must not use
// up the time of the others.
const listAtOnce = 32

// List returns up to limit entries that match, newest first, after a place (zero: from the newest).
// A page may be shorter, or empty, before the end, as a call examines a bounded number. Entries that
// cannot be read are left out: Verify names them. So are trails that cannot be read: the page names
// them. List fails if none can be read.
func (s *Store) List(ctx context.Context, f audit.Filter, after audit.Place, limit int) (audit.Page, error) {
	short, cancel := clock.Share(ctx, 4)
	names, unnamed := s.Trails(short)
	cancel()
	l := &listing{ctx: ctx, after: after}
	for _, trail := range names {
		l.sources = append(l.sources, &newestFirst{store: s, trail: trail, from: startOf(&f, after)})
	}
	var page audit.Page
	if err := l.begin(); err != nil {
		return page, err
	}
	for range looksPerAsk {
		x, more := l.next()
		if !more || !f.From.IsZero() && subscriber.VersionTime(x.ID).Before(f.From.Add(-ClockMargin)) {
			page.Next = audit.Place{}
			break
		}
		e, err := audit.ParseEntry(x.Text)
		if err == nil && f.Match(&e) {
			if len(page.Entries) == limit {
				break
			}
			page.Entries = append(page.Entries, e)
		}
		page.Next = x.Place
	}
	for _, source := range l.sources {
		if source.failed != nil {
			page.Unread = append(page.Unread, audit.Unread{Trail: source.trail, Err: source.failed})
		}
	}
	if unnamed != nil {
		page.Unread = append(page.Unread, audit.Unread{Err: unnamed})
	}
	return page, nil
}

// listing merges trails.
type listing struct {
	ctx     context.Context
	after   audit.Place
	sources []*newestFirst
}

// begin reads the first entries of all trails, and fails if it can read none.
func (l *listing) begin() error {
	ctx, cancel := clock.Share(l.ctx, 2)
	defer cancel()
	var workers errgroup.Group
	workers.SetLimit(listAtOnce)
	for _, source := range l.sources {
		workers.Go(func() error {
			source.fill(ctx)
			return nil
		})
	}
	_ = workers.Wait() // each source has its own error
	if !slices.ContainsFunc(l.sources, func(source *newestFirst) bool { return source.failed == nil }) {
		return l.sources[0].failed
	}
	return nil
}

// next takes the newest entry behind the place, if there is one.
func (l *listing) next() (x audit.Stored, more bool) {
	for {
		var first *newestFirst
		for _, source := range l.sources {
			source.fill(l.ctx)
			if len(source.ready) > 0 && (first == nil || compare(source.ready[0].Place, first.ready[0].Place) < 0) {
				first = source
			}
		}
		if first == nil {
			return x, false
		}
		x, first.ready = first.ready[0], first.ready[1:]
		if l.after == (audit.Place{}) || compare(x.Place, l.after) > 0 {
			return x, true
		}
	}
}

// startOf returns the newest identifier that a list may have.
func startOf(f *audit.Filter, after audit.Place) string {
	switch {
	case after != (audit.Place{}):
		return after.ID
	case !f.To.IsZero():
		return strconv.FormatInt(max(f.To.Add(ClockMargin).UnixMilli(), 0), 10)
	}
	return "+"
}

// newestFirst reads one trail backwards.
type newestFirst struct {
	store  *Store
	trail  string
	from   string // identifier to read on from
	ready  []audit.Stored
	ended  bool
	failed error
}

// fill reads on where nothing is ready.
func (n *newestFirst) fill(ctx context.Context) {
	if len(n.ready) > 0 || n.ended {
		return
	}
	read, err := n.store.o.Client.XRevRangeN(ctx, codec.AuditKey(n.trail), n.from, "-", readCount).Result()
	if redisconn.UnlessWrongType(err) != nil {
		n.failed, n.ended = fmt.Errorf("read %s: %w", codec.AuditKey(n.trail), err), true
		return
	}
	n.ready, n.ended = toStored(n.trail, read), len(read) < readCount
	if len(read) > 0 {
		n.from = "(" + read[len(read)-1].ID
	}
}

func toStored(trail string, read []redis.XMessage) []audit.Stored {
	list := make([]audit.Stored, len(read))
	for i, m := range read {
		text, _ := m.Values["entry"].(string)
		hash, _ := m.Values["hash"].(string)
		list[i] = audit.Stored{Place: audit.Place{ID: m.ID, Trail: trail}, Text: text, Hash: hash}
	}
	return list
}

// Behind returns up to limit entries of a trail behind an identifier ("": from the first), oldest
// first.
func (s *Store) Behind(ctx context.Context, trail, id string, limit int) ([]audit.Stored, error) {
	from := "-"
	if id != "" {
		from = "(" + id
	}
	read, err := s.o.Client.XRangeN(ctx, codec.AuditKey(trail), from, "+", int64(limit)).Result()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", codec.AuditKey(trail), err)
	}
	return toStored(trail, read), nil
}

// End returns the end of a trail as it is now.
func (s *Store) End(ctx context.Context, trail string) (audit.End, error) {
	newest, err := s.o.Client.XRevRangeN(ctx, codec.AuditKey(trail), "+", "-", 1).Result()
	if err != nil {
		return audit.End{}, fmt.Errorf("read %s: %w", codec.AuditKey(trail), err)
	}
	ends, err := s.readEnds(ctx, trail)
	if redisconn.UnlessWrongType(err) != nil {
		return audit.End{}, fmt.Errorf("read %s: %w", codec.AuditHeadKey(trail), err)
	}
	end := audit.End{Number: ends.last.Number, Removed: ends.removed.Number}
	for _, x := range toStored(trail, newest) {
		end.ID = x.ID
		if e, err := audit.ParseEntry(x.Text); err == nil { // the head may be lost
			end.Number = max(end.Number, e.Number)
		}
	}
	return end, nil
}

// Position returns how far a sink has come in a trail, as it was stored; "" for nowhere.
func (s *Store) Position(ctx context.Context, trail, sink string) (string, error) {
	id, err := s.o.Client.HGet(ctx, codec.AuditSinksKey(trail), sink).Result()
	if err == redis.Nil {
		return "", nil
	}
	return id, err
}

// SetPosition stores how far a sink has come in a trail.
func (s *Store) SetPosition(ctx context.Context, trail, sink, position string) error {
	return s.o.Client.HSet(ctx, codec.AuditSinksKey(trail), sink, position).Err()
}
