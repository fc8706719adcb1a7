package trail

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/audit"
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

// List returns up to limit entries that match, newest first, after a place (zero: from the
// newest). Next is the place to continue after, zero at the end. A page may be shorter, or
// empty, before the end, as a call examines a bounded number. Entries that cannot be read are
// left out: Verify names them.
func (s *Store) List(ctx context.Context, f audit.Filter, after audit.Place, limit int) (page []audit.Entry, next audit.Place, err error) {
	names, err := s.Trails(ctx)
	if err != nil {
		return nil, audit.Place{}, err
	}
	var sources []*newestFirst
	for _, trail := range names {
		sources = append(sources, &newestFirst{store: s, trail: trail, from: startOf(&f, after)})
	}
	for range looksPerAsk {
		var first *newestFirst
		for _, source := range sources {
			if err := source.fill(ctx); err != nil {
				return nil, audit.Place{}, err
			}
			if len(source.ready) > 0 && (first == nil || compare(source.ready[0].Place, first.ready[0].Place) < 0) {
				first = source
			}
		}
		if first == nil {
			return page, audit.Place{}, nil
		}
		x := first.ready[0]
		if !f.From.IsZero() && subscriber.VersionTime(x.ID).Before(f.From.Add(-ClockMargin)) {
			return page, audit.Place{}, nil
		}
		first.ready = first.ready[1:]
		if after != (audit.Place{}) && compare(x.Place, after) <= 0 {
			continue
		}
		e, err := audit.ParseEntry(x.Text)
		if err == nil && f.Match(&e) {
			if len(page) == limit {
				return page, next, nil
			}
			page = append(page, e)
		}
		next = x.Place
	}
	return page, next, nil
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
	store *Store
	trail string
	from  string // identifier to read on from
	ready []audit.Stored
	ended bool
}

func (n *newestFirst) fill(ctx context.Context) error {
	if len(n.ready) > 0 || n.ended {
		return nil
	}
	read, err := n.store.o.Client.XRevRangeN(ctx, codec.AuditKey(n.trail), n.from, "-", readCount).Result()
	if redisconn.UnlessWrongType(err) != nil {
		return fmt.Errorf("read %s: %w", codec.AuditKey(n.trail), err)
	}
	n.ready, n.ended = toStored(n.trail, read), len(read) < readCount
	if len(read) > 0 {
		n.from = "(" + read[len(read)-1].ID
	}
	return nil
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
