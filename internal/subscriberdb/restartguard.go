package subscriberdb

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/guard"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
)

// restartGuards holds the guards of the groups against restarts that would end too many
// sessions.
type restartGuards struct {
	mu      sync.Mutex
	byGroup map[string]*guard.Guard
	passed  map[groupNAS]string // restarts that passed the guard and are not fully swept, by NAS
}

// groupNAS identifies a NAS in one group.
type groupNAS struct {
	group string
	nas   NASName
}

func groupNASOf(group string, id subscriber.SessionID) groupNAS {
	return groupNAS{group, codec.NASOf(id)}
}

// pass stores that a restart passed the guard, so that a sweep that was interrupted may go
// on.
func (r *restartGuards) pass(nas groupNAS, line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.passed == nil {
		r.passed = map[groupNAS]string{}
	}
	r.passed[nas] = line
}

func (r *restartGuards) hasPassed(nas groupNAS, line string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.passed[nas] == line
}

func (r *restartGuards) swept(nas groupNAS) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.passed, nas)
}

// ask asks the group's guard for permission to end n sessions, all or none.
func (r *restartGuards) ask(g *Group, n, online int, now time.Time) guard.Answer {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byGroup == nil {
		r.byGroup = map[string]*guard.Guard{}
	}
	if r.byGroup[g.Name] == nil {
		r.byGroup[g.Name] = guard.New(g.Guard)
	}
	r.byGroup[g.Name].SetLimits(g.Guard)
	return r.byGroup[g.Name].AskWhole(subscriber.ReasonNASRestart, n, online, now)
}

// decided notes in the guards that removals were confirmed or refused.
func (r *restartGuards) decided(records []subscriber.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range records {
		if g := r.byGroup[records[i].Group]; g != nil {
			g.Decided(records[i].RemovalHeld)
		}
	}
}

// checkLimits marks as held the restarts that would end more sessions than the group's
// guard allows.
func (sw *restartSweeper) checkLimits(ctx context.Context, g *Group, pending pendingRestarts) error {
	if !g.Guard.Bounds(subscriber.ReasonNASRestart) {
		return nil
	}
	online, err := sw.client.HLen(ctx, codec.OnlineKey(g.Name)).Result()
	if err != nil {
		return err
	}
	meant, err := sw.countOlder(ctx, g, pending)
	if err != nil {
		return err
	}
	for _, p := range pending {
		nas := groupNASOf(g.Name, p.nas)
		if meant[p] == 0 || p.since.Confirm || sw.guards.hasPassed(nas, p.line) {
			continue
		}
		answer := sw.guards.ask(g, meant[p], int(online), sw.now())
		if p.held = answer.Passed < meant[p]; p.held {
			sw.logger.Error("restart of a NAS would end too many sessions, held until it is confirmed or refused",
				"group", g.Name, "client", p.nas.Client, "nas", p.nas.NAS, "sessions", meant[p], "limit", answer.Limit,
				"see", "sessionctl removal list")
		} else {
			sw.guards.pass(nas, p.line)
		}
	}
	return nil
}

// countOlder returns the number of sessions that each restart ends. It includes removals
// that are suspended already, because a sweep that was interrupted has to suspend the rest.
func (sw *restartSweeper) countOlder(ctx context.Context, g *Group, pending pendingRestarts) (map[*pendingRestart]int, error) {
	meant := map[*pendingRestart]int{}
	err := sw.client.ScanHash(ctx, codec.OnlineKey(g.Name), func(fields []string) error {
		var keys []subscriber.Key
		for i := 0; i+1 < len(fields); i += 2 {
			inside, err := netip.ParseAddr(fields[i])
			if err == nil && pending.of(sw.nases, codec.NASOfOnlineEntry(fields[i+1])) != nil {
				keys = append(keys, subscriber.Key{Group: g.Name, Inside: inside})
			}
		}
		records, err := sw.reader.readSessions(ctx, keys)
		if err != nil {
			return fmt.Errorf("count sessions of restarted NASes: %w", err)
		}
		for i := range records {
			ref := codec.NASRef(records[i].SessionID)
			if p := pending.of(sw.nases, ref); p != nil && p.means(&records[i]) {
				meant[p]++
			}
		}
		return nil
	})
	return meant, err
}

// suspend decides about a record whose session the restart ended while the restart is held: it
// suspends the removal until an operator decides or the NAS reports the session or, where
// the client's restarts need a confirmation, until the record expires.
func (p *pendingRestart) suspend(g *Group, v subscriber.View) subscriber.Decision {
	if v.Holder == nil || !p.means(v.Holder) || v.Holder.RemovalHeld == subscriber.ReasonNASRestart {
		return subscriber.Decision{}
	}
	r := *v.Holder
	r.RemovalHeld, r.ExpiresAt = subscriber.ReasonNASRestart, time.Time{}
	if ttl := g.txns.TTL(r.Client); p.since.Confirm && ttl > 0 {
		r.ExpiresAt = p.now().Add(ttl)
	}
	return subscriber.Decision{Put: &r}
}
