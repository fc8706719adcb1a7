package session

import (
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lifecycle"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// Removals returns up to limit pending or observed removals after the key
// after, and the key to continue after, which is zero at the end.
func (v *Backend) Removals(_ context.Context, f inspect.RemovalFilter, after inspect.RemovalKey, limit int) ([]inspect.Removal, inspect.RemovalKey, error) {
	p := removalPage{filter: f, after: after, limit: limit}
	if err := v.gatherRemovals(&p); err != nil {
		return nil, inspect.RemovalKey{}, err
	}
	page, next := p.cut()
	return page, next, nil
}

func (v *Backend) gatherRemovals(p *removalPage) error {
	v.shared.mu.RLock()
	defer v.shared.mu.RUnlock()
	if err := v.readiness.restoredRLocked(); err != nil {
		return err
	}
	for _, source := range []func(*removalPage){v.heldRemovalsRLocked, v.graceRLocked, v.observedRLocked} {
		source(p)
	}
	return nil
}

// removalPage gathers a page of removals from several sources. Each source
// yields in order, and may stop before its end.
type removalPage struct {
	filter inspect.RemovalFilter
	after  inspect.RemovalKey
	limit  int
	items  []inspect.Removal
	end    inspect.RemovalKey // all sources are complete up to here; zero: to their ends
}

// wants reports whether the filter admits removals of that kind.
func (p *removalPage) wants(kind inspect.RemovalKind) bool {
	return p.filter.Kind == 0 || p.filter.Kind == kind
}

// whoOf returns the part of the filter that concerns subscribers.
func whoOf(f *inspect.RemovalFilter) *inspect.SubscriberFilter {
	return &inspect.SubscriberFilter{Group: f.Group, NAS: f.NAS, Inside: f.Inside}
}

// add adds a removal if it belongs to the page, and reports whether it does.
func (p *removalPage) add(r inspect.Removal) bool {
	if !p.filter.Match(&r) || r.Key().Compare(p.after) <= 0 {
		return false
	}
	p.items = append(p.items, r)
	return true
}

// from adds the removals of a source's slots, until there is one more than fits
// the page, or looksPerCall slots were examined.
func (p *removalPage) from(slots iter.Seq2[subscriber.Key, *lifecycle.Slot], kind inspect.RemovalKind, removal func(*lifecycle.Slot) (inspect.Removal, bool)) {
	looks, added := 0, 0
	for key, s := range slots {
		if r, ok := removal(s); ok && p.add(r) {
			added++
		}
		if looks++; looks == looksPerCall || added > p.limit {
			p.endAt(inspect.RemovalKey{Key: key, Kind: kind, Since: lifecycle.Farthest})
			return
		}
	}
}

// endAt records that a source stopped after a key.
func (p *removalPage) endAt(key inspect.RemovalKey) {
	if p.end == (inspect.RemovalKey{}) || key.Compare(p.end) < 0 {
		p.end = key
	}
}

// cut returns the page, and the key to continue after.
func (p *removalPage) cut() ([]inspect.Removal, inspect.RemovalKey) {
	slices.SortFunc(p.items, func(a, b inspect.Removal) int { return a.Key().Compare(b.Key()) })
	if p.end != (inspect.RemovalKey{}) {
		p.items = slices.DeleteFunc(p.items, func(r inspect.Removal) bool { return r.Key().Compare(p.end) > 0 })
	}
	if len(p.items) > p.limit {
		p.items = p.items[:p.limit]
		return p.items, p.items[p.limit-1].Key()
	}
	return p.items, p.end
}

// graceRLocked adds the removals that wait for the end of a grace time.
func (v *Backend) graceRLocked(p *removalPage) {
	if !p.wants(inspect.RemovalGrace) {
		return
	}
	after, now := behindKey(p.after), v.shared.now()
	slots := v.slotsRLocked(v.shared.life.Graces().Groups(p.filter.Group, after.Group), p.filter.Inside, after, v.shared.life.Graces().From)
	p.from(slots, inspect.RemovalGrace, func(s *lifecycle.Slot) (inspect.Removal, bool) {
		if s.Online() || s.Phase() != lifecycle.Draining || !s.InGrace(now) {
			return inspect.Removal{}, false
		}
		r := s.Removal(inspect.RemovalGrace)
		r.DueAt, r.Sessions = s.GraceUntil(), v.kernel.SessionCount(s.Inside())
		return r, true
	})
}

// heldRemovalsRLocked adds the removals that guards suspend.
func (v *Backend) heldRemovalsRLocked(p *removalPage) {
	if !p.wants(inspect.RemovalHeld) {
		return
	}
	who := whoOf(&p.filter)
	p.from(v.heldSlotsRLocked(who, behindKey(p.after)), inspect.RemovalHeld, func(s *lifecycle.Slot) (inspect.Removal, bool) {
		why := s.Packed().RemovalHeld()
		if !s.Online() || why == subscriber.ReasonNone || !who.MatchPacked(s.Packed()) {
			return inspect.Removal{}, false
		}
		r := inspect.Removal{
			Kind: inspect.RemovalHeld, Record: s.Packed().Record(), Reason: why, Sessions: v.kernel.SessionCount(s.Inside()),
		}
		if r.Record.Version != "" { // it was last written when the removal was suspended
			r.Since = subscriber.VersionTime(r.Record.Version)
		}
		return r, true
	})
}

// heldSlotsRLocked is onlineRLocked for slots whose removal may be suspended.
func (v *Backend) heldSlotsRLocked(f *inspect.SubscriberFilter, after subscriber.Key) iter.Seq2[subscriber.Key, *lifecycle.Slot] {
	return v.slotsRLocked(v.shared.life.Online().Groups(f.Group, after.Group), f.Inside, after, v.shared.life.Online().HeldFrom)
}

// behindKey returns a subscriber key such that all removals after the given one
// belong to later subscribers. An address may have several removals, so the key
// is before its address.
func behindKey(after inspect.RemovalKey) subscriber.Key {
	before := after.Inside.Prev()
	if !before.IsValid() {
		return subscriber.Key{Group: after.Group}
	}
	return subscriber.Key{Group: after.Group, Inside: before}
}

// heldKeys returns, in order, the keys of matching subscribers whose removal is
// suspended.
func (v *Backend) heldKeys(f inspect.RemovalFilter) ([]subscriber.Key, error) {
	v.shared.mu.RLock()
	defer v.shared.mu.RUnlock()
	if err := v.readiness.restoredRLocked(); err != nil {
		return nil, err
	}
	var keys []subscriber.Key
	who := whoOf(&f)
	for key, s := range v.heldSlotsRLocked(who, subscriber.Key{}) {
		why := s.Packed().RemovalHeld()
		if s.Online() && why != subscriber.ReasonNone && (f.Reason == 0 || f.Reason == why) && who.MatchPacked(s.Packed()) {
			keys = append(keys, key)
		}
	}
	return keys, nil
}

// toDecide returns the subscribers whose suspended removals a decision is about, and those about
// which an earlier attempt has decided. With an etag both together must be those that it names.
func toDecide(ctx context.Context, v *Backend, f inspect.RemovalFilter, etag string) (keys, earlier []subscriber.Key, err error) {
	if keys, err = v.heldKeys(f); err != nil {
		return nil, nil, err
	}
	if earlier, err = v.earlier(ctx); err != nil || etag == "" {
		return keys, earlier, err
	}
	both := slices.Concat(keys, earlier)
	slices.SortFunc(both, inspect.CompareKeys)
	if inspect.RemovalsEtag(slices.Compact(both)) != etag {
		return nil, nil, fmt.Errorf("%d removals are held now, and they are not those of the etag; look at them again: %w", len(keys), inspect.ErrConflict)
	}
	return keys, earlier, nil
}

// ConfirmRemovals executes the suspended removals that match, and returns their
// number once the engine has applied them.
func (v *Backend) ConfirmRemovals(ctx context.Context, f inspect.RemovalFilter, etag string) (int, error) {
	keys, earlier, err := toDecide(ctx, v, f, etag)
	if err != nil {
		return 0, err
	}
	ended, err := v.store.ConfirmRemovals(ctx, keys)
	v.shared.decided(ended)
	if err != nil {
		return len(ended), unavailable(err)
	}
	v.follower.awaitTails(ctx)
	return len(earlier) + len(ended), nil
}

// RefuseRemovals drops the suspended removals that match, and returns their
// number once the engine has applied that.
func (v *Backend) RefuseRemovals(ctx context.Context, f inspect.RemovalFilter, etag string) (int, error) {
	keys, earlier, err := toDecide(ctx, v, f, etag)
	if err != nil {
		return 0, err
	}
	kept, err := v.store.RefuseRemovals(ctx, keys)
	v.shared.decided(kept)
	if err != nil {
		return len(kept), unavailable(err)
	}
	v.follower.awaitTails(ctx)
	v.shared.mu.RLock()
	defer v.shared.mu.RUnlock()
	for i := range kept {
		r := kept[i]
		reason := r.RemovalHeld
		r.RemovalHeld = subscriber.ReasonNone
		packed := r.Pack()
		v.reports.Emit(lifecycle.Transition{
			Kind: inspect.EventRemovalRefused, At: v.shared.now(), End: subscriber.End{Reason: reason}, Record: &packed, Slot: v.shared.life.Slot(r.Inside),
		})
	}
	return len(earlier) + len(kept), nil
}

// decided reports to the guards that a person has decided about suspended
// removals, which ends the wave.
func (s *sharedState) decided(records []subscriber.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range records {
		if g := s.groups[records[i].Group]; g != nil {
			g.Guard.Decided(records[i].RemovalHeld)
		}
	}
}

// observedMost is the number of observed removals that are kept.
const observedMost = 10_000

// wouldRemove keeps the newest removals that RemovalOn would have carried out.
type wouldRemove struct {
	ring []inspect.Removal
	next int // the oldest, once the ring is full
}

func (o *wouldRemove) add(r inspect.Removal) {
	if len(o.ring) < observedMost {
		o.ring = append(o.ring, r)
		return
	}
	o.ring[o.next] = r
	o.next = (o.next + 1) % observedMost
}

// observedRLocked adds the observed removals. An address may have several.
func (v *Backend) observedRLocked(p *removalPage) {
	if !p.wants(inspect.RemovalObserved) {
		return
	}
	first := topN[*inspect.Removal]{limit: p.limit + 1, compare: func(a, b *inspect.Removal) int {
		return a.Key().Compare(b.Key())
	}}
	for i := range v.reports.observed.ring {
		if r := &v.reports.observed.ring[i]; p.filter.Match(r) && r.Key().Compare(p.after) > 0 {
			first.add(r)
		}
	}
	for _, r := range first.kept {
		p.add(*r)
	}
	if n := len(first.kept); n > p.limit {
		p.endAt(first.kept[n-1].Key())
	}
}
