package subscriberdb

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// patrol walks the hashes of online addresses for records that are gone. To
// look at a record is also what makes Redis expire it. It cannot tell why a
// record is gone; Bury can.
type patrol struct {
	db     *DB
	gone   func(subscriber.Key, subscriber.Reason)
	always bool // walk again and again, because nobody notifies us
	walked bool
	due    time.Time
}

// patience is how long to wait for a notification before looking at the patrol
// and the context again.
func (p *patrol) patience() time.Duration {
	if !p.always {
		return receiveAlive
	}
	return max(time.Until(p.due), time.Millisecond)
}

func (p *patrol) walkIfDue(ctx context.Context) error {
	if p.walked && (!p.always || time.Now().Before(p.due)) {
		return nil
	}
	began := time.Now()
	groups := p.db.groups.Load()
	for i := range groups.groups {
		if err := p.walk(ctx, groups.groups[i].Name); err != nil {
			return err
		}
	}
	p.walked = true
	p.due = time.Now().Add(max(patrolPause, patrolShare*time.Since(began)))
	return nil
}

func (p *patrol) walk(ctx context.Context, group string) error {
	return p.db.scanHash(ctx, onlineKey(group), func(fields []string) error {
		batch := make([]removal, 0, len(fields)/2)
		for i := 0; i+1 < len(fields); i += 2 {
			inside, err := netip.ParseAddr(fields[i])
			if err != nil {
				continue
			}
			key := subscriber.Key{Group: group, Inside: inside}
			batch = append(batch, removal{key, subscriber.ReasonNone})
		}
		return p.check(ctx, batch)
	})
}

// check passes on those records that are gone and whose end nobody announced.
func (p *patrol) check(ctx context.Context, batch []removal) error {
	if len(batch) == 0 {
		return nil
	}
	pipe := p.db.client.Pipeline()
	records, witnesses := make([]*redis.IntCmd, len(batch)), make([]*redis.BoolCmd, len(batch))
	for i, r := range batch {
		records[i] = pipe.Exists(ctx, recordKey(r.key.Group, r.key.Inside))
		witnesses[i] = pipe.HExists(ctx, onlineKey(r.key.Group), r.key.Inside.String())
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("check removed records: %w", err)
	}
	for i, r := range batch {
		if records[i].Val() == 0 && witnesses[i].Val() {
			p.gone(r.key, r.reason)
		}
	}
	return nil
}
