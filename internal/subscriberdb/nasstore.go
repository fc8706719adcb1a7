package subscriberdb

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// What is known of the NASes is kept in Redis, so that a daemon that starts knows
// their clocks, and a person sees what all daemons know:
//
//	sessiond:nas          by NAS: heard=<time> offset=<seconds> restarted=<time> same_as=<client>/<nas>
//	sessiond:nas:refused  by NAS and verdict ("<client>/<nas> <verdict>"): number of events
const (
	nasesKey   = "sessiond:nas"
	refusedKey = "sessiond:nas:refused"
)

const (
	nasFlush = 2 * time.Second // how often what changed is written
	// nasForgotten is how long a NAS that is not heard of stands in the list.
	nasForgotten = 30 * 24 * time.Hour
)

// KeepNASes reads what was known of the NASes, and writes what changes, until the
// context ends. Errors are tried again: nothing else waits for it.
func (db *DB) KeepNASes(ctx context.Context) error {
	ticker := time.NewTicker(nasFlush)
	defer ticker.Stop()
	loaded := false
	for {
		if !loaded {
			loaded = db.loadNASes(ctx) == nil
		} else if err := db.flushNASes(ctx); err != nil && ctx.Err() == nil {
			db.logger.Debug("NASes not written", "error", err)
		}
		select {
		case <-ctx.Done():
			return db.lastFlush(ctx)
		case <-ticker.C:
		}
	}
}

// lastFlush writes what changed before the end, if Redis answers soon.
func (db *DB) lastFlush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = db.flushNASes(ctx) // what is not kept is learned again
	return nil
}

// NASes returns all NASes that sent accounting to any daemon within a month, in
// order of their names. What this daemon knows and has not written yet is told too.
func (db *DB) NASes(ctx context.Context) ([]NAS, error) {
	if err := db.flushNASes(ctx); err != nil {
		return nil, fmt.Errorf("write NASes: %w", err)
	}
	lines, err := db.client.HGetAll(ctx, nasesKey).Result()
	if err != nil {
		return nil, fmt.Errorf("read NASes: %w", err)
	}
	refused, err := db.client.HGetAll(ctx, refusedKey).Result()
	if err != nil {
		return nil, fmt.Errorf("read refused events: %w", err)
	}
	byRef := make(map[string]*NAS, len(lines))
	for ref, line := range lines {
		id, err := parseNASRef(ref)
		if err != nil {
			continue // written by hand
		}
		n := parseNAS(line)
		n.Client, n.Name = id.Client, id.NAS
		byRef[ref] = &n
	}
	for field, count := range refused {
		ref, verdict, _ := strings.Cut(field, " ")
		n := byRef[ref]
		if value, err := strconv.ParseUint(count, 10, 64); err == nil && n != nil {
			n.Refused[verdict] = value
		}
	}
	list := make([]NAS, 0, len(byRef))
	for _, ref := range slices.Sorted(maps.Keys(byRef)) {
		list = append(list, *byRef[ref])
	}
	return list, nil
}

// loadNASes reads what was known of the NASes, and forgets those that have not been
// heard of for long. What this daemon knows already is newer.
func (db *DB) loadNASes(ctx context.Context) error {
	lines, err := db.client.HGetAll(ctx, nasesKey).Result()
	if err != nil {
		return err
	}
	var old []string
	now := db.now()
	db.nases.mu.Lock()
	for ref, line := range lines {
		id, err := parseNASRef(ref)
		if err != nil {
			continue
		}
		n := parseNAS(line)
		if now.Sub(n.LastHeard) > nasForgotten {
			old = append(old, ref)
			continue
		}
		db.nases.adoptLocked(nasKeyOf(id), n, now)
	}
	db.nases.mu.Unlock()
	return db.forgetNASes(ctx, old)
}

// adoptLocked takes over what another run knew of a NAS.
func (r *nasRegistry) adoptLocked(key nasKey, n NAS, now time.Time) {
	e := r.entryLocked(key)
	if e == nil {
		return
	}
	if _, known := e.clock.Offset(); !known && n.Known {
		e.clock = subscriber.NewClock(n.Offset, now)
	}
	if n.Restarted.After(e.restarted) {
		e.restarted = n.Restarted
	}
	if same, err := parseNASRef(n.SameAs); err == nil && n.SameAs != "" && e.sameAs == (nasKey{}) {
		e.sameAs = nasKeyOf(same)
	}
}

func (db *DB) forgetNASes(ctx context.Context, refs []string) error {
	if len(refs) == 0 {
		return nil
	}
	counts, err := db.client.HKeys(ctx, refusedKey).Result()
	if err != nil {
		return err
	}
	counts = slices.DeleteFunc(counts, func(field string) bool {
		ref, _, _ := strings.Cut(field, " ")
		return !slices.Contains(refs, ref)
	})
	if len(counts) > 0 {
		if err := db.client.HDel(ctx, refusedKey, counts...).Err(); err != nil {
			return err
		}
	}
	return db.client.HDel(ctx, nasesKey, refs...).Err()
}

// nasNews is what is to be written of the NASes that changed.
type nasNews struct {
	lines   []any
	refused map[string]uint64
}

// flushNASes writes what changed. What could not be written is kept for the next
// time; of the counts, what Redis took without an answer may count twice.
func (db *DB) flushNASes(ctx context.Context) error {
	news := db.nases.news()
	if len(news.lines) == 0 {
		return nil
	}
	pipe := db.client.Pipeline()
	pipe.HSet(ctx, nasesKey, news.lines...)
	for field, n := range news.refused {
		pipe.HIncrBy(ctx, refusedKey, field, int64(n))
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		db.nases.unsaid(news)
		return err
	}
	return nil
}

// news takes what changed since the last time.
func (r *nasRegistry) news() nasNews {
	r.mu.Lock()
	defer r.mu.Unlock()
	news := nasNews{refused: make(map[string]uint64)}
	for key, e := range r.byKey {
		if !e.changed {
			continue
		}
		ref := nasRef(key.id())
		news.lines = append(news.lines, ref, e.text())
		for v, n := range e.refused {
			news.refused[ref+" "+v.String()] = n
		}
		e.changed, e.refused = false, nil
	}
	return news
}

// unsaid puts back what could not be written.
func (r *nasRegistry) unsaid(news nasNews) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := 0; i < len(news.lines); i += 2 {
		ref, _ := news.lines[i].(string)
		id, err := parseNASRef(ref)
		e := r.byKey[nasKeyOf(id)]
		if err != nil || e == nil {
			continue
		}
		e.changed = true
		for v := subscriber.NotHere; v.Known(); v++ {
			if n := news.refused[ref+" "+v.String()]; n > 0 {
				if e.refused == nil {
					e.refused = make(map[subscriber.Verdict]uint64)
				}
				e.refused[v] += n
			}
		}
	}
}

// text is the entry as it stands in Redis.
func (e *nasEntry) text() string {
	text := appendTime([]byte("heard="), e.heard)
	if offset, known := e.clock.Offset(); known {
		text = strconv.AppendInt(append(text, " offset="...), int64(offset/time.Second), 10)
	}
	if !e.restarted.IsZero() {
		text = appendTime(append(text, " restarted="...), e.restarted)
	}
	if e.sameAs != (nasKey{}) {
		text = append(append(text, " same_as="...), nasRef(e.sameAs.id())...)
	}
	return string(text)
}

// parseNAS reads what text wrote. What cannot be read is left zero.
func parseNAS(line string) NAS {
	n := NAS{Refused: map[string]uint64{}}
	for word := range strings.SplitSeq(line, " ") {
		switch name, value, _ := strings.Cut(word, "="); name {
		case "heard":
			n.LastHeard = parseTime(value)
		case "offset":
			seconds, err := strconv.ParseInt(value, 10, 32)
			n.Offset, n.Known = time.Duration(seconds)*time.Second, err == nil
		case "restarted":
			n.Restarted = parseTime(value)
		case "same_as":
			n.SameAs = value
		}
	}
	return n
}
