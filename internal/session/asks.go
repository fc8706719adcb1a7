package session

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/lifecycle"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nftnat"
	"github.com/sessiond/sessiond/internal/pcp"
	"github.com/sessiond/sessiond/internal/portmap"
	"github.com/sessiond/sessiond/internal/queue"
)

// Mappings that subscribers ask for by PCP are decided many at once: one lock, one write to the
// database for each group, and one transaction of the kernel serve all that wait. A new mapping
// has its port from the decision on, so that no other one gets it, and is answered once the
// database and the kernel have it. A renewed one changes only in the database.

// An ask is one request of a client, or the mappings that ended with a binding.
type ask struct {
	add    *pcp.MapRequest
	remove *pcp.UnmapRequest
	ended  []nat.Mapping

	ctx    context.Context // of who waits
	answer chan answer     // has room for the only one

	// The decision.
	g     *group
	put   []nat.Mapping // in the database, of the endpoints below
	renew bool
	made  *nat.Mapping // in the table since the decision
	held  *nat.Mapping // which had its endpoint in quarantine
}

type answer struct {
	mapping pcp.Mapping
	err     error
}

// askedMost bounds the requests of one decision: the lock is held for it.
const askedMost = 1024

// askKeeper makes, renews and ends the mappings of clients of PCP. It implements pcp.Mappings.
type askKeeper struct {
	*mappingKeeper
	queue   *queue.Queue[*ask]
	applied chan struct{} // gets a token when the kernel has changed

	// Guarded by mu.
	rules   map[string]*pcp.GroupSettings
	waiting []*ask // for the kernel
	told    pcpTold
}

// pcpTold tells the server about clients whose mappings were lost while they are online.
type pcpTold func(inside netip.Addr)

func newAskKeeper(k *mappingKeeper) *askKeeper {
	return &askKeeper{
		mappingKeeper: k, queue: queue.New[*ask](askedMost), applied: make(chan struct{}, 1),
		rules: map[string]*pcp.GroupSettings{},
	}
}

// PCP returns the mappings of clients.
func (m *Manager) PCP() pcp.Mappings { return m.asks }

// SetPCP sets the rules of all groups, and who is told that the mappings of a client were lost:
// its binding was taken away, and it has another one.
func (m *Manager) SetPCP(rules map[string]*pcp.GroupSettings, lost func(inside netip.Addr)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asks.rules, m.asks.told = rules, lost
}

// noRules are those of a group without any.
var noRules pcp.GroupSettings

// Reads.

// Client implements pcp.Mappings.
func (k *askKeeper) Client(inside netip.Addr) (pcp.Client, bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	g := k.servedRLocked(inside)
	if g == nil {
		return pcp.Client{}, false
	}
	c := pcp.Client{Group: g.Name, Settings: k.rules[g.Name]}
	if c.Settings == nil {
		c.Settings = &noRules
	}
	b, ok := lifecycle.ForwardsOf(k.life).Bound(g.Group.Group, inside)
	if !ok || !k.settled {
		return c, false
	}
	c.Outside, c.Since, c.Until = b.Outside, b.AllocatedAt, k.life.Slot(inside).Packed().ExpiresAt()
	return c, true
}

// servedRLocked returns the group that serves an inside address, nil for none.
func (k *askKeeper) servedRLocked(inside netip.Addr) *group {
	if g := k.life.ServerOf(inside); g != nil {
		return k.groups[g.Name]
	}
	return nil
}

// List implements pcp.Mappings.
func (k *askKeeper) List(inside netip.Addr) (list []pcp.Mapping) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	g := k.servedRLocked(inside)
	if g == nil {
		return nil
	}
	forwards, _ := lifecycle.ForwardsOf(k.life).InSlot(inside)
	for f := range forwards.All() {
		if m, ok := g.Mappings.At(f.Endpoint()); ok && !m.Ended() {
			list = append(list, mappingOf(inside, &m))
		}
	}
	return list
}

// mappingOf converts a mapping that an inside address has.
func mappingOf(inside netip.Addr, m *nat.Mapping) pcp.Mapping {
	return pcp.Mapping{
		Inside: netip.AddrPortFrom(inside, uint16(m.InsidePort)), Outside: m.Outside.AddrPort, Protocol: m.Outside.Protocol,
		Nonce: m.Nonce, Expires: m.ExpiresAt, Peer: m.Peer, Static: m.Kind != nat.MappingPCP,
	}
}

// errFound ends a walk through sessions.
var errFound = errors.New("found")

// Flow implements pcp.Mappings.
func (k *askKeeper) Flow(ctx context.Context, r pcp.FlowRequest) (f pcp.Flow, found bool, err error) {
	inside := netip.PrefixFrom(r.Inside.Addr(), r.Inside.Addr().BitLen())
	err = k.kernel.SessionsOf(ctx, inside, func(s nftnat.Session) error {
		if s.Inside == r.Inside && s.Remote == r.Remote && s.Protocol == r.Protocol {
			f = pcp.Flow{Outside: s.Outside, Timeout: s.ExpiresIn}
			return errFound
		}
		return ctx.Err()
	})
	if errors.Is(err, errFound) {
		return f, true, nil
	}
	return f, false, err
}

// Requests.

// Map implements pcp.Mappings.
func (k *askKeeper) Map(ctx context.Context, r pcp.MapRequest) (pcp.Mapping, error) {
	return k.order(ctx, &ask{add: &r})
}

// Unmap implements pcp.Mappings.
func (k *askKeeper) Unmap(ctx context.Context, r pcp.UnmapRequest) error {
	_, err := k.order(ctx, &ask{remove: &r})
	return err
}

func (k *askKeeper) order(ctx context.Context, a *ask) (pcp.Mapping, error) {
	a.ctx, a.answer = ctx, make(chan answer, 1)
	k.queue.Push(a)
	select {
	case got := <-a.answer:
		return got.mapping, got.err
	case <-ctx.Done():
		return pcp.Mapping{}, pcp.ErrUnavailable
	}
}

// MappingsEnded implements lifecycle.Effects.
func (e *effects) MappingsEnded(list []nat.Mapping) {
	enqueue(&e.mu, e.asks.queue, &ask{ended: list})
	if s := e.life.Slot(list[0].Owner.Inside); s != nil && s.Online() && s.Own() {
		e.asks.moved[s.Inside()] = list[0].BoundAt
	}
}

// run decides about requests, all queued ones at once.
func (k *askKeeper) run(ctx context.Context) error {
	for batch := []*ask(nil); ; {
		var err error
		if batch, err = k.queue.Dequeue(ctx, batch); err != nil {
			return err
		}
		k.decideAll(ctx, batch)
	}
}

// decideAll decides about requests, stores the decisions, and carries them out.
func (k *askKeeper) decideAll(ctx context.Context, batch []*ask) {
	k.changing.Lock()
	defer k.changing.Unlock()
	now := k.now()
	k.mu.Lock()
	writes := map[*group]*askWrites{}
	for _, a := range batch {
		k.decideLocked(a, now)
		writesOf(writes, a)
	}
	k.mu.Unlock()
	for g, w := range writes {
		w.err = k.save(ctx, g, w.put, w.remove)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, a := range batch {
		if a.g != nil {
			k.concludeLocked(a, writes[a.g].err, now)
		}
	}
	signal(k.applied) // what the kernel has already is answered too
}

// askWrites are what a batch writes for one group.
type askWrites struct {
	put    []nat.Mapping
	remove []nat.Endpoint
	err    error
}

func writesOf(all map[*group]*askWrites, a *ask) {
	if a.g == nil {
		return
	}
	w := all[a.g]
	if w == nil {
		w = &askWrites{}
		all[a.g] = w
	}
	w.put = append(w.put, a.put...)
	for i := range a.ended { // as they are now: a later mapping may have the endpoint
		switch m, ok := a.g.Mappings.At(a.ended[i].Outside); {
		case !ok:
			w.remove = append(w.remove, a.ended[i].Outside)
		case !m.Configured:
			w.put = append(w.put, m)
		}
	}
}

func (a *ask) tell(err error) { a.answer <- answer{err: err} }

// decideLocked decides about a request; one that changes nothing is answered.
func (k *askKeeper) decideLocked(a *ask, now time.Time) {
	if a.ended != nil {
		a.g = k.groups[a.ended[0].Group]
		return
	}
	if a.ctx.Err() != nil { // nobody waits any more, and the client asks again
		return
	}
	inside := a.inside()
	g := k.servedRLocked(inside)
	if g == nil || !k.settled {
		a.tell(pcp.ErrNotOnline)
		return
	}
	b, ok := lifecycle.ForwardsOf(k.life).Bound(g.Group.Group, inside)
	switch {
	case !ok:
		a.tell(pcp.ErrNotOnline)
	case a.add != nil:
		a.decideAdd(k, g, &b, now)
	default:
		a.decideRemove(k, g, now)
	}
}

func (a *ask) inside() netip.Addr {
	if a.add != nil {
		return a.add.Inside.Addr()
	}
	return a.remove.Inside.Addr()
}

// decideAdd decides about a mapping to make or to renew.
func (a *ask) decideAdd(k *askKeeper, g *group, b *nat.Binding, now time.Time) {
	r, inside := a.add, a.inside()
	if stale := g.Mappings.EndAsked(inside, b.AllocatedAt, now); len(stale) > 0 { // of an earlier run
		a.put = append(a.put, stale...)
	}
	has, ok := k.mappingOfRLocked(g, inside, r.Protocol, r.Inside.Port())
	expires := now.UTC().Truncate(time.Microsecond).Add(r.Lifetime)
	switch {
	case !ok:
		a.plan(k, g, b, now, expires)
	case has.Kind == nat.MappingPCP && r.CheckNonce && has.Nonce != r.Nonce:
		a.answer <- answer{mappingOf(inside, &has), pcp.ErrNotAuthorized}
	case r.PreferFailure && !suggests(r.Suggested, has.Outside.AddrPort):
		a.tell(pcp.ErrNoPort)
	case has.Kind != nat.MappingPCP:
		a.answer <- answer{mapping: mappingOf(inside, &has)}
	default:
		if !r.Peer.IsValid() {
			has.Peer = netip.AddrPort{} // a mapping by MAP lets everybody in; this one does already
			has.ExpiresAt = expires
		} else if expires.After(has.ExpiresAt) {
			has.ExpiresAt = expires
		}
		a.g, a.made, a.renew = g, &has, true
		a.put = append(a.put, has)
	}
	if a.g == nil && len(a.put) > 0 { // stale ones, and no answer that waits
		k.unsure[g.Name] = true
	}
}

// mappingOfRLocked returns the mapping of an inside port: the operator's, of the address or of its
// user, before the client's own.
func (k *askKeeper) mappingOfRLocked(g *group, inside netip.Addr, protocol uint8, port uint16) (nat.Mapping, bool) {
	forwards, _ := lifecycle.ForwardsOf(k.life).InSlot(inside)
	for f := range forwards.All() {
		if f.Protocol == protocol && uint16(f.InsidePort) == port {
			if m, ok := g.Mappings.At(f.Endpoint()); ok && !m.Ended() {
				return m, true
			}
		}
	}
	return g.Mappings.OfPort(nat.Owner{Inside: inside}, protocol, nat.Port(port))
}

// suggests reports whether a client suggests an endpoint: parts that it leaves open fit.
func suggests(s, e netip.AddrPort) bool {
	return (s.Port() == 0 || s.Port() == e.Port()) && (!s.Addr().IsValid() || s.Addr().IsUnspecified() || s.Addr() == e.Addr())
}

// plan makes a mapping in the table, on the outside address of the client's binding.
func (a *ask) plan(k *askKeeper, g *group, b *nat.Binding, now, expires time.Time) {
	r := a.add
	m := nat.Mapping{
		Group: g.Name, Kind: nat.MappingPCP, Owner: nat.Owner{Inside: a.inside()}, InsidePort: nat.Port(r.Inside.Port()), Outside: nat.Endpoint{Protocol: r.Protocol},
		CreatedAt: now.UTC().Truncate(time.Microsecond), ExpiresAt: expires, BoundAt: b.AllocatedAt, Nonce: r.Nonce, Peer: r.Peer,
	}
	taken := func(e nat.Endpoint) bool {
		_, taken := k.life.Engine().AtOutside(e.Addr(), nat.Port(e.Port()))
		return taken
	}
	made, err := m, error(portmap.ErrExists)
	if at := netip.AddrPortFrom(b.Outside, r.Suggested.Port()); at.Port() != 0 && (!r.PreferFailure || suggests(r.Suggested, at)) {
		made.Outside.AddrPort = at
		made, err = g.Mappings.Plan(made, b.Outside, taken)
	}
	if err != nil && !errors.Is(err, portmap.ErrQuota) && !r.PreferFailure {
		made, err = g.Mappings.Plan(m, b.Outside, taken)
	}
	switch {
	case errors.Is(err, portmap.ErrQuota):
		a.tell(pcp.ErrQuota)
		return
	case err != nil:
		a.tell(pcp.ErrNoPort)
		return
	}
	if held, ok := g.Mappings.At(made.Outside); ok {
		a.held = &held
	}
	g.Mappings.Put(made)
	a.g, a.made = g, &made
	a.put = append(a.put, made)
}

// decideRemove decides about mappings to end.
func (a *ask) decideRemove(k *askKeeper, g *group, now time.Time) {
	r, inside := a.remove, a.inside()
	var list []nat.Mapping
	if port := r.Inside.Port(); port != 0 {
		if m, ok := k.mappingOfRLocked(g, inside, r.Protocol, port); ok {
			list = append(list, m)
		}
	} else {
		for m := range g.Mappings.Of(nat.Owner{Inside: inside}) {
			if m.Kind == nat.MappingPCP && (r.Protocol == 0 || r.Protocol == m.Outside.Protocol) {
				list = append(list, m)
			}
		}
	}
	for _, m := range list {
		if m.Kind == nat.MappingPCP && (!r.CheckNonce || m.Nonce == r.Nonce) {
			m.HoldUntil = now.Add(g.Mappings.Config().Hold)
			a.put = append(a.put, m)
		}
	}
	switch {
	case len(a.put) > 0:
		a.g = g
	case len(list) > 0:
		a.tell(pcp.ErrNotAuthorized)
	default:
		a.tell(nil)
	}
}

// concludeLocked carries out a decision, which is stored unless err says why not.
func (k *askKeeper) concludeLocked(a *ask, err error, now time.Time) {
	forwards := lifecycle.ForwardsOf(k.life)
	switch {
	case a.ended != nil: // what is not stored is compared later
	case err != nil:
		if a.made != nil && !a.renew {
			a.g.Mappings.Remove(a.made.Outside)
			if a.held != nil {
				a.g.Mappings.Put(*a.held)
			}
			forwards.Changed(a.g.Group.Group, a.made.Owner, now)
		}
		a.tell(pcp.ErrUnavailable)
	case a.renew:
		if !a.g.Mappings.Renew(a.made) {
			k.unsure[a.g.Name] = true // it has ended with its binding
			a.tell(pcp.ErrNotOnline)
			return
		}
		k.waiting = append(k.waiting, a)
	case a.made != nil:
		forwards.Changed(a.g.Group.Group, a.made.Owner, now)
		k.waiting = append(k.waiting, a)
	default:
		for i := range a.put {
			if m := &a.put[i]; m.Ended() {
				a.g.Mappings.End(m.Outside, now)
			}
		}
		forwards.Changed(a.g.Group.Group, nat.Owner{Inside: a.inside()}, now)
		k.waiting = append(k.waiting, a)
	}
}

// runAnswers answers requests once the kernel has what they asked for.
func (k *askKeeper) runAnswers(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-k.applied:
		}
		k.mu.Lock()
		kept := k.waiting[:0]
		for _, a := range k.waiting {
			if !k.answeredRLocked(a) {
				kept = append(kept, a)
			}
		}
		clear(k.waiting[len(kept):])
		k.waiting = kept
		lost, tell := k.lostLocked(), k.told
		k.mu.Unlock()
		for _, inside := range lost {
			tell(inside)
		}
	}
}

// answeredRLocked answers a request, unless the kernel has not all of it yet and somebody waits.
func (k *askKeeper) answeredRLocked(a *ask) bool {
	if a.ctx.Err() != nil {
		return true
	}
	inside := a.inside()
	has, inForce := lifecycle.ForwardsOf(k.life).InSlot(inside)
	if a.made == nil {
		if inForce {
			a.tell(nil)
		}
		return inForce
	}
	m, ok := a.g.Mappings.At(a.made.Outside)
	switch {
	case !ok || m.Ended() || !m.BoundAt.Equal(a.made.BoundAt) || !has.Has(a.made.Forward()):
		a.tell(pcp.ErrNotOnline)
		return true
	case inForce:
		a.answer <- answer{mapping: mappingOf(inside, &m)}
	}
	return inForce
}

// lostLocked returns the clients whose mappings were lost with a binding, and that have another
// one now.
func (k *askKeeper) lostLocked() (lost []netip.Addr) {
	for inside, former := range k.moved {
		s := k.life.Slot(inside)
		if s == nil || !s.Online() {
			delete(k.moved, inside)
			continue
		}
		if g := k.servedRLocked(inside); g != nil {
			if b, ok := lifecycle.ForwardsOf(k.life).Bound(g.Group.Group, inside); ok && !b.AllocatedAt.Equal(former) {
				delete(k.moved, inside)
				lost = append(lost, inside)
			}
		}
	}
	if k.told == nil {
		return nil
	}
	return lost
}

// endStale ends the mappings of bindings that an earlier run ended without storing their end.
func (k *mappingKeeper) endStale(_ context.Context, g *group) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.loaded[g.Name] {
		delete(k.loaded, g.Name)
		lifecycle.ForwardsOf(k.life).EndAsked(g.Group.Group, k.now())
	}
	return nil
}
