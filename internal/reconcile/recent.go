package reconcile

import (
	"context"
	"net/netip"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// After a restart or a gap in the feed, a missing record may have an end that
// was not read. Where the reason matters, for a grace time, the recent feed is
// read.

// readRecent reads the changes of a group that are so recent that a grace time
// may still run. An address whose last change is a creation, but that has no
// record, is left out: others removed the record.
func (r *Reconciler) readRecent(ctx context.Context, g *Group) error {
	r.mu.RLock()
	config := g.Config
	r.mu.RUnlock()
	if config.Grace == 0 {
		return nil
	}
	changes, err := r.store.Recent(ctx, g.Name, r.now().Add(-config.Grace))
	if err != nil {
		return err
	}
	recent := make(map[netip.Addr][]subscriber.Change)
	for _, c := range changes {
		recent[c.Record.Inside()] = append(recent[c.Record.Inside()], c)
	}
	var came []netip.Addr
	for inside, cs := range recent {
		if cs[len(cs)-1].Kind == subscriber.Created {
			came = append(came, inside)
		}
	}
	gone, err := r.store.Gone(ctx, g.Name, came)
	if err != nil {
		return err
	}
	for _, inside := range gone {
		delete(recent, inside)
	}
	r.mu.Lock()
	g.Recent = recent
	r.mu.Unlock()
	return nil
}
