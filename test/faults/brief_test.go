package faults

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/redis/go-redis/v9"
)

// Group brief has a short record_ttl, and its NAS sends no Interims: a session there ends
// soon, by the expiry of its record (DEL-09).
const (
	briefTTL      = 5 * time.Second
	briefLines    = 4
	briefKeys     = "sessiond:{brief}:"
	briefCapacity = 16 // blocks of two addresses
)

var (
	briefInside  = netip.MustParsePrefix("100.96.0.0/11")
	briefOutside = netip.MustParsePrefix("192.0.2.8/31")
)

func briefConfig() string {
	return fmt.Sprintf("name: brief, inside: [%s], outside: [%s], port_range: 2048-2559, block_size: %d, hold: %s, record_ttl: %s",
		briefInside, briefOutside, 64, hold, briefTTL)
}

// A brief is one address of group brief.
type brief struct {
	line
	sent, answered time.Time // of its newest Start
}

func newBriefs() []*brief {
	var all []*brief
	for a := briefInside.Addr().Next(); len(all) < briefLines; a = a.Next() {
		all = append(all, &brief{line: line{inside: a}})
	}
	return all
}

// planBriefs starts new sessions for some of them.
func (w *world) planBriefs() []op {
	var ops []op
	for _, b := range w.briefs {
		if w.rng.IntN(4) == 0 {
			b.online = w.model.newSession(b.owner(), "nas-brief")
			ops = append(ops, op{kind: opBrief, line: &b.line, session: b.online, brief: b})
		}
	}
	return ops
}

// writtenBack is called after a loss of the database: expired records may have been written
// back, for the TTL of a record.
func (w *world) writtenBack() {
	for _, b := range w.briefs {
		b.sent, b.answered = time.Time{}, time.Now()
	}
}

func (w *world) lookBriefs(ctx context.Context, s *snapshot) error {
	s.briefFrom = time.Now()
	exist := make([]*redis.IntCmd, len(w.briefs))
	_, err := w.db.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, b := range w.briefs {
			exist[i] = p.Exists(ctx, briefKeys+"sub:"+b.inside.String())
		}
		return nil
	})
	s.briefRecords = map[netip.Addr]bool{}
	for i, b := range w.briefs {
		s.briefRecords[b.inside] = exist[i].Val() == 1
	}
	return err
}

// clocks is the most by which the clocks of Redis and of this process may differ.
const clocks = 200 * time.Millisecond

// briefs: a record exists as long as it should, and the binding as long as the record.
func (c *comparison) briefs() {
	live := c.live()
	for _, b := range c.world.briefs {
		record := c.s.briefRecords[b.inside]
		if !record && c.s.briefFrom.Add(clocks).Before(b.sent.Add(briefTTL)) {
			c.differ("%s: record is gone too soon", b.inside)
		}
		if record && c.s.briefFrom.After(b.answered.Add(briefTTL+clocks)) {
			c.differ("%s: record should have expired", b.inside)
		}
		if bound := live[b.inside]; record != (bound != nil && bound.is("ACTIVE")) {
			draining := !c.model.removal && bound != nil && bound.is("DRAINING")
			if record || !draining {
				c.differ("%s: record stands %t, binding is %v", b.inside, record, bound)
			}
		}
	}
}
