package session

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/audit"
	"github.com/sessiond/sessiond/internal/clock"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lifecycle"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nftnat"
	"github.com/sessiond/sessiond/internal/queue"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
)

// Mappings that outlive their sessions are stored before they are programmed, and taken out of
// the database before they are taken out of the kernel. sessiond alone writes them: what the
// database has otherwise is written again as it is here, so that an empty one loses nothing.

// mappingStore keeps mappings in the database.
type mappingStore interface {
	Mappings(ctx context.Context, group string, yield func([]nat.Mapping) error) error
	CountMappings(ctx context.Context, group string) (int, error)
	SaveMappings(ctx context.Context, group string, put []nat.Mapping, remove []nat.Endpoint) error
	EarlierEntries(ctx context.Context) ([]audit.Entry, error)
}

// mappingKernel takes mappings over at a start, and ends the sessions through one.
type mappingKernel interface {
	ExpectStatic(endpoints []nat.Endpoint) // of mappings that an earlier run programmed
	SessionsOf(ctx context.Context, inside netip.Prefix, yield func(nftnat.Session) error) error
	KillSession(ctx context.Context, s nftnat.Session) error
}

const (
	mappingsEvery    = time.Second      // between looks for lifetimes and quarantines that are over
	mappingsCompared = 10 * time.Second // between comparisons of the number of stored mappings
	mappingLook      = 5 * time.Millisecond
	endedAgain       = 20 * time.Millisecond // a packet that was being processed is through by then
)

// mappingKeeper makes mappings and ends them.
type mappingKeeper struct {
	*sharedState
	store  mappingStore
	kernel mappingKernel
	leases *groupLeases
	ends   *queue.Queue[sessionEnd]

	changing sync.Mutex // serializes changes of mappings; taken after regrouping and before mu

	// Guarded by mu.
	endsLeft map[netip.Addr]int // addresses whose sessions through former mappings are being ended
	ended    map[nat.Endpoint]int
	unsure   map[string]bool          // groups whose mappings are to be stored again: a write failed, or a reload ended some
	former   map[string][]nat.Forward // by group, mappings that an earlier run ended, perhaps without their sessions
	moved    map[netip.Addr]time.Time // online addresses whose mappings by PCP ended with a binding, and when that was allocated
	loaded   map[string]bool          // groups with stored mappings whose bindings may be gone
}

// sessionEnd is the order to end the sessions of an address through former mappings.
type sessionEnd struct {
	inside  netip.Addr
	through nat.Forwards
}

// EndSessions implements lifecycle.Effects.
func (e *effects) EndSessions(inside netip.Addr, through nat.Forwards) {
	e.mappings.endsLeft[inside]++
	enqueue(&e.mu, e.mappings.ends, sessionEnd{inside, through})
}

// runEnds ends the sessions through former mappings.
func (k *mappingKeeper) runEnds(ctx context.Context) error {
	for batch := []sessionEnd(nil); ; {
		var err error
		if batch, err = k.ends.Dequeue(ctx, batch); err != nil {
			return err
		}
		for _, end := range batch {
			err := retry(ctx, k.log, "end the sessions through a mapping", logErrors, func(ctx context.Context) error {
				return k.endAll(ctx, end)
			})
			if err != nil {
				return err
			}
			k.mu.Lock()
			if k.endsLeft[end.inside]--; k.endsLeft[end.inside] == 0 {
				delete(k.endsLeft, end.inside)
			}
			k.mu.Unlock()
		}
	}
}

// endAll ends sessions until it finds none twice: the second time after a packet that met the
// mapping before it went has made its conntrack entry.
func (k *mappingKeeper) endAll(ctx context.Context, end sessionEnd) error {
	for clean := 0; clean < 2; clean++ {
		if clean > 0 {
			if err := clock.Sleep(ctx, endedAgain); err != nil {
				return err
			}
		}
		var through []nftnat.Session
		err := k.kernel.SessionsOf(ctx, netip.PrefixFrom(end.inside, 32), func(s nftnat.Session) error {
			if s.Inside.Addr() == end.inside && end.through.Has(s.Forward()) {
				through = append(through, s)
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, s := range through {
			if err := k.kernel.KillSession(ctx, s); err != nil {
				return err
			}
			k.mu.Lock()
			if _, asked := k.ended[s.OutsideEndpoint()]; asked {
				k.ended[s.OutsideEndpoint()]++
			}
			k.mu.Unlock()
			clean = -1
		}
	}
	return nil
}

// endFormer ends the sessions through mappings that an earlier run ended: it may have died before
// their sessions, and the kernel's elements do not tell any more.
func (k *mappingKeeper) endFormer(ctx context.Context, g *group) error {
	k.mu.RLock()
	former := k.former[g.Name]
	k.mu.RUnlock()
	if len(former) == 0 {
		return nil
	}
	through := map[netip.Addr][]nat.Forward{}
	for _, prefix := range g.Config.Inside {
		err := k.kernel.SessionsOf(ctx, prefix, func(s nftnat.Session) error {
			if f, inside := s.Forward(), s.Inside.Addr(); slices.Contains(former, f) && !slices.Contains(through[inside], f) {
				through[inside] = append(through[inside], f)
			}
			return ctx.Err()
		})
		if err != nil {
			return err
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.former, g.Name)
	for inside, list := range through {
		list = slices.DeleteFunc(list, func(f nat.Forward) bool { return k.hasLocked(g, inside, f) })
		k.endsLeft[inside]++
		enqueue(&k.mu, k.ends, sessionEnd{inside, nat.NewForwards(list)})
	}
	return nil
}

// hasLocked reports whether an address has a mapping, one that was made again.
func (k *mappingKeeper) hasLocked(g *group, inside netip.Addr, f nat.Forward) bool {
	m, ok := g.Mappings.At(f.Endpoint())
	if !ok || m.Ended() || m.Forward() != f {
		return false
	}
	at, _ := lifecycle.ForwardsOf(k.life).At(g.Group.Group, &m)
	return at == inside
}

// run ends mappings whose lifetime is over, frees endpoints whose quarantine is over, ends the
// sessions that an earlier run has left of its mappings, and writes mappings again that the
// database lost.
func (k *mappingKeeper) run(ctx context.Context) error {
	tick := time.NewTicker(mappingsEvery)
	defer tick.Stop()
	for compared := time.Now(); ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		whatever := time.Since(compared) >= mappingsCompared
		if whatever {
			compared = time.Now()
		}
		for _, g := range k.syncedGroups() {
			if err := errors.Join(k.endStale(ctx, g), k.endDue(ctx, g), k.endFormer(ctx, g), k.compare(ctx, g, whatever)); err != nil && ctx.Err() == nil {
				k.log.Debug("mappings are not as they should be in the database yet", "group", g.Name, "error", err)
			}
		}
	}
}

// endDue ends the mappings and frees the endpoints that are due, here even if that cannot be
// stored: their time is over.
func (k *mappingKeeper) endDue(ctx context.Context, g *group) error {
	k.changing.Lock()
	defer k.changing.Unlock()
	var over []nat.Mapping
	var free []nat.Endpoint
	k.mu.Lock()
	for now := k.now(); ; {
		m, ok := g.Mappings.Due(now)
		if !ok {
			break
		}
		if m.Ended() {
			g.Mappings.Remove(m.Outside)
			free = append(free, m.Outside)
			continue
		}
		m, _ = g.Mappings.End(m.Outside, now)
		lifecycle.ForwardsOf(k.life).Changed(g.Group.Group, m.Owner, now)
		over = append(over, m)
	}
	k.mu.Unlock()
	if len(over)+len(free) == 0 {
		return nil
	}
	for _, m := range over {
		if m.Kind == nat.MappingStatic {
			k.log.Info("the lifetime of a mapping is over", "group", g.Name, "outside", m.Outside, "owner", m.Owner.String())
		}
	}
	return k.save(ctx, g, over, free) // an error: compare stores it
}

// save writes mappings, or has them compared later.
func (k *mappingKeeper) save(ctx context.Context, g *group, put []nat.Mapping, remove []nat.Endpoint) error {
	err := k.leases.Check(ctx, g.Name)
	if err == nil {
		err = k.store.SaveMappings(ctx, g.Name, put, remove)
	}
	if err != nil {
		k.mu.Lock()
		k.unsure[g.Name] = true
		k.mu.Unlock()
		return unavailable(err)
	}
	return nil
}

// Comparison with the database.

// compare makes the stored mappings of a group those in force, if they may differ: a write
// failed, a reload ended some, or their number is another one.
func (k *mappingKeeper) compare(ctx context.Context, g *group, count bool) error {
	k.changing.Lock()
	defer k.changing.Unlock()
	k.mu.RLock()
	unsure, known := k.unsure[g.Name], g.Mappings.Stored()
	k.mu.RUnlock()
	if count && !unsure {
		n, err := k.store.CountMappings(ctx, g.Name)
		if err != nil {
			return err
		}
		if unsure = n != known; unsure {
			k.log.Warn("stored mappings differ from those in force, and are written again", "group", g.Name, "mappings", known)
		}
	}
	if !unsure {
		return nil
	}
	return k.storeAll(ctx, g)
}

// storeAll writes the mappings of a group that the database should have, and removes all others.
func (k *mappingKeeper) storeAll(ctx context.Context, g *group) error {
	want := map[nat.Endpoint]nat.Mapping{}
	k.mu.RLock()
	for m := range g.Mappings.From(nat.Endpoint{}) {
		if !m.Configured {
			want[m.Outside] = m
		}
	}
	k.mu.RUnlock()
	missing, stale := maps.Clone(want), []nat.Endpoint(nil)
	err := k.store.Mappings(ctx, g.Name, func(list []nat.Mapping) error {
		for _, has := range list {
			m, ok := want[has.Outside]
			switch {
			case !ok:
				stale = append(stale, has.Outside)
			case sameMapping(&m, &has):
				delete(missing, has.Outside)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := k.save(ctx, g, slices.Collect(maps.Values(missing)), stale); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.unsure, g.Name)
	return nil
}

// sameMapping compares times by the instant: the database gives back another form of them.
func sameMapping(a, b *nat.Mapping) bool {
	x, y := *a, *b
	for _, m := range []*nat.Mapping{&x, &y} {
		m.CreatedAt, m.ExpiresAt, m.HoldUntil, m.BoundAt = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	}
	return x == y && a.CreatedAt.Equal(b.CreatedAt) && a.ExpiresAt.Equal(b.ExpiresAt) && a.HoldUntil.Equal(b.HoldUntil) && a.BoundAt.Equal(b.BoundAt)
}

// Load implements reconcile.Mappings. Where the configuration has the endpoint of a stored
// mapping, or its owner's inside port, the stored one is given up: somebody has said what holds. One by
// PCP is given up too where the configuration has no room for its port: its client asks again.
func (k *mappingKeeper) Load(ctx context.Context, name string) error {
	var all []nat.Mapping
	err := k.store.Mappings(ctx, name, func(list []nat.Mapping) error {
		all = append(all, list...)
		return nil
	})
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	g := k.groups[name]
	if g == nil {
		return nil
	}
	var mapped []nat.Endpoint
	for m := range g.Mappings.From(nat.Endpoint{}) {
		mapped = append(mapped, m.Outside)
	}
	outside := 0
	for i := range all {
		m := &all[i]
		if has, known := g.Mappings.At(m.Outside); known && sameMapping(&has, m) {
			continue // an earlier attempt has read it
		}
		mapped = append(mapped, m.Outside)
		switch asked := m.Kind == nat.MappingPCP; {
		case (!asked || m.Ended() || g.Mappings.Config().Has(m.Outside)) && g.Mappings.Put(*m), m.Ended():
		case asked:
			k.unsure[name] = true
			k.former[name] = append(k.former[name], m.Forward())
			continue
		default:
			k.unsure[name] = true
			k.log.Error("a stored mapping is given up: the configuration has its outside endpoint, or its owner's inside port, for another one",
				"group", name, "outside", m.Outside, "owner", m.Owner.String(), "inside_port", m.InsidePort)
		}
		if m.Ended() {
			k.former[name] = append(k.former[name], m.Forward())
		}
		if !m.Ended() && !g.Mappings.Config().Has(m.Outside) {
			outside++
		}
	}
	k.loaded[name] = true
	k.kernel.ExpectStatic(mapped)
	if outside > 0 {
		k.log.Warn("stored mappings have ports that the configuration does not set apart; they are kept, and not in force", "group", name, "mappings", outside)
	}
	return nil
}

// StoreAll implements reconcile.Mappings.
func (k *mappingKeeper) StoreAll(ctx context.Context, name string) error {
	k.changing.Lock()
	defer k.changing.Unlock()
	k.mu.RLock()
	g := k.groups[name]
	k.mu.RUnlock()
	if g == nil {
		return nil
	}
	return k.storeAll(ctx, g)
}

// Orders of callers.

// create makes a mapping, and returns once the kernel has it if its owner is online.
func (k *mappingKeeper) create(ctx context.Context, m nat.Mapping, lifetime time.Duration) (inspect.Mapping, error) {
	if made, ok, err := k.earlier(ctx, false); ok || err != nil {
		return made, err
	}
	g, m, inside, err := k.add(ctx, m, lifetime)
	if err != nil {
		return inspect.Mapping{}, err
	}
	k.log.Info("mapping created", "group", g.Name, "outside", m.Outside, "owner", m.Owner.String(), "inside_port", m.InsidePort)
	err = k.await(ctx, inside)
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.viewRLocked(g, &m), err
}

// add makes a mapping, and returns the address at which its owner is online, zero for none.
func (k *mappingKeeper) add(ctx context.Context, m nat.Mapping, lifetime time.Duration) (*group, nat.Mapping, netip.Addr, error) {
	k.changing.Lock()
	defer k.changing.Unlock()
	g, m, err := k.plan(m)
	if err != nil {
		return nil, m, netip.Addr{}, err
	}
	m.CreatedAt = k.now().UTC().Truncate(time.Microsecond)
	if lifetime > 0 {
		m.ExpiresAt = m.CreatedAt.Add(lifetime)
	}
	if err := k.save(ctx, g, []nat.Mapping{m}, nil); err != nil {
		return nil, m, netip.Addr{}, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	g.Mappings.Put(m)
	lifecycle.ForwardsOf(k.life).Changed(g.Group.Group, m.Owner, k.now())
	return g, m, lifecycle.ForwardsOf(k.life).Online(g.Group.Group, m.Owner), nil
}

// plan completes a mapping, and finds its group.
func (k *mappingKeeper) plan(m nat.Mapping) (*group, nat.Mapping, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	g, err := k.groupRLocked(m.Group, m.Owner)
	if err != nil {
		return nil, m, err
	}
	m.Group = g.Name
	var prefer netip.Addr
	if inside := lifecycle.ForwardsOf(k.life).Online(g.Group.Group, m.Owner); inside.IsValid() {
		if b, ok := k.life.Engine().Live(g.Name, inside); ok {
			prefer = b.Outside
		}
	}
	m, err = g.Mappings.Plan(m, prefer, func(e nat.Endpoint) bool {
		_, taken := k.life.Engine().AtOutside(e.Addr(), nat.Port(e.Port()))
		return taken
	})
	return g, m, err
}

// groupRLocked returns the named group; without a name the only one, or that of the owner's
// address.
func (k *mappingKeeper) groupRLocked(name string, o nat.Owner) (*group, error) {
	if !k.settled {
		return nil, inspect.ErrNotReady
	}
	switch g := k.groups[name]; {
	case g != nil:
		return g, nil
	case name != "":
		return nil, fmt.Errorf("group %q: %w", name, inspect.ErrNotFound)
	case o.Inside.IsValid():
		if g := k.groupOfRLocked(o.Inside); g != nil {
			return g, nil
		}
		return nil, fmt.Errorf("inside address %v: %w", o.Inside, inspect.ErrNoGroup)
	case len(k.groups) == 1:
		for _, g := range k.groups {
			return g, nil
		}
	}
	return nil, fmt.Errorf("there are %d groups, and a user may be of any: name one: %w", len(k.groups), inspect.ErrNoGroup)
}

// remove ends a mapping, and returns once the kernel has neither it nor a session through it.
func (k *mappingKeeper) remove(ctx context.Context, name string, e nat.Endpoint) (inspect.Mapping, int, error) {
	g, m, inside, err := k.end(ctx, name, e)
	if errors.Is(err, inspect.ErrNotFound) {
		if ended, ok, failed := k.earlier(ctx, true); ok || failed != nil {
			return ended, 0, failed
		}
	}
	if err != nil {
		return inspect.Mapping{}, 0, err
	}
	k.log.Info("mapping deleted", "group", g.Name, "outside", m.Outside, "owner", m.Owner.String(), "inside_port", m.InsidePort)
	err = k.await(ctx, inside)
	k.mu.Lock()
	defer k.mu.Unlock()
	sessions := k.ended[e]
	delete(k.ended, e)
	return k.viewRLocked(g, &m), sessions, err
}

// earlier returns the mapping that an earlier attempt with the order's request_id made or ended.
func (k *mappingKeeper) earlier(ctx context.Context, ended bool) (inspect.Mapping, bool, error) {
	entries, err := k.store.EarlierEntries(ctx)
	if err != nil {
		return inspect.Mapping{}, false, unavailable(err)
	}
	k.mu.RLock()
	defer k.mu.RUnlock()
	for _, e := range entries {
		g := k.groups[e.Group]
		if g == nil {
			continue
		}
		for m := range g.Mappings.From(nat.Endpoint{}) {
			if slices.Contains(e.Keys, codec.FormatEndpoint(m.Outside)) && m.Ended() == ended {
				return k.viewRLocked(g, &m), true, nil
			}
		}
	}
	return inspect.Mapping{}, false, nil
}

// end ends a mapping, and returns the address that had it, zero for none.
func (k *mappingKeeper) end(ctx context.Context, name string, e nat.Endpoint) (*group, nat.Mapping, netip.Addr, error) {
	k.changing.Lock()
	defer k.changing.Unlock()
	g, m, err := k.find(name, e)
	if err != nil {
		return nil, m, netip.Addr{}, err
	}
	at := k.now()
	ended := m
	ended.HoldUntil, ended.Nonce = at.Add(g.Mappings.Config().Hold), [12]byte{} // the trail keeps no nonce
	if err := k.save(ctx, g, []nat.Mapping{ended}, nil); err != nil {
		return nil, m, netip.Addr{}, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ended[e] = 0
	inside, _ := lifecycle.ForwardsOf(k.life).At(g.Group.Group, &m)
	g.Mappings.Remove(e)
	g.Mappings.Put(ended)
	m = ended
	lifecycle.ForwardsOf(k.life).Changed(g.Group.Group, m.Owner, at)
	return g, m, inside, nil
}

// find returns the mapping in force of an endpoint that may be deleted.
func (k *mappingKeeper) find(name string, e nat.Endpoint) (*group, nat.Mapping, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if !k.settled {
		return nil, nat.Mapping{}, inspect.ErrNotReady
	}
	for _, g := range k.groups {
		m, ok := g.Mappings.At(e)
		switch {
		case !ok || m.Ended() || name != "" && name != g.Name:
		case m.Configured:
			return nil, m, inspect.ErrMappingConfigured
		default:
			return g, m, nil
		}
	}
	return nil, nat.Mapping{}, inspect.ErrNotFound
}

// await waits until an address, zero for none, has its mappings in the kernel, and no session
// through former ones.
func (k *mappingKeeper) await(ctx context.Context, inside netip.Addr) error {
	for inside.IsValid() {
		k.mu.RLock()
		pending := k.endsLeft[inside] > 0 || lifecycle.ForwardsOf(k.life).Pending(inside)
		k.mu.RUnlock()
		if !pending {
			return nil
		}
		if err := clock.Sleep(ctx, mappingLook); err != nil {
			return err
		}
	}
	return nil
}

func (k *mappingKeeper) viewRLocked(g *group, m *nat.Mapping) inspect.Mapping {
	view := inspect.Mapping{Mapping: *m}
	if !m.Ended() {
		view.Inside, view.InForce = lifecycle.ForwardsOf(k.life).At(g.Group.Group, m)
	}
	return view
}

// endIn ends all mappings of a group in an outside prefix that is taken away, those too whose end
// cannot be stored yet. changing is held.
func (k *mappingKeeper) endIn(ctx context.Context, g *group, outside netip.Prefix) error {
	k.mu.RLock()
	var list []nat.Mapping
	for m := range g.Mappings.From(nat.Endpoint{}) {
		if outside.Contains(m.Outside.Addr()) && !m.Ended() && !m.Configured {
			list = append(list, m)
		}
	}
	k.mu.RUnlock()
	var errs []error
	for some := range slices.Chunk(list, endedMost) {
		errs = append(errs, k.save(ctx, g, k.endSome(g, some), nil))
	}
	return errors.Join(errs...)
}

// endedMost bounds the mappings that are ended at a time: the lock is held for it.
const endedMost = 256

// endSome ends mappings that are in force, and returns them as they are to be stored.
func (k *mappingKeeper) endSome(g *group, list []nat.Mapping) (ended []nat.Mapping) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.now()
	for i := range list {
		m, ok := g.Mappings.End(list[i].Outside, now)
		if !ok {
			continue
		}
		ended = append(ended, m)
		lifecycle.ForwardsOf(k.life).Changed(g.Group.Group, m.Owner, now)
		if m.Kind == nat.MappingPCP {
			k.moved[m.Owner.Inside] = m.BoundAt
		}
	}
	return ended
}
