package session

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// A Desk answers the questions of a NOC's desk about a Manager: it explains customers, lists ends,
// and finds the busiest subscribers. It implements control.Desk. All methods may be called
// concurrently.
type Desk struct {
	*Backend
	maxSessions int           // nat.max_sessions_per_subscriber; 0 for no bound
	walks       chan struct{} // has the turn of a walk over all subscribers
}

// Desk returns the Manager's Desk.
func (m *Manager) Desk() *Desk { return m.desk }

// Bounds of an explanation.
const (
	explainedMost = 10 // addresses of one user
	mappedMost    = 10 // mappings of one address
)

// Explain returns everything about a customer, for each of its inside addresses. What cannot be read
// now, as while Redis is away, is left out.
func (v *Desk) Explain(ctx context.Context, who inspect.Customer) ([]inspect.Explanation, error) {
	list, err := v.explained(who)
	if err != nil {
		return nil, err
	}
	for i := range list {
		e := &list[i]
		v.addEnding(e, who)
		if e.Subscriber == nil && e.Binding == nil && e.LastEnding == nil {
			return nil, fmt.Errorf("nobody is online there, and no end is known: %w", inspect.ErrNotFound)
		}
		v.addMappings(ctx, e)
		v.addNAS(ctx, e)
		drops, err := v.kernel.Drops(ctx)
		if err != nil {
			continue
		}
		for _, d := range drops {
			if e.Concerns(d.Drop) {
				e.Drops = append(e.Drops, d)
			}
		}
	}
	return list, nil
}

// explained returns an explanation of each address of the customer, with the data that the life
// cycle and the index of sessions have.
func (v *Desk) explained(who inspect.Customer) ([]inspect.Explanation, error) {
	list, err := v.explainedOnline(who)
	if err != nil || len(list) > 0 {
		return list, err
	}
	// Without the Manager's lock, for which cuts wait: the search goes through all endings.
	past := v.reports.endings.page(&inspect.EndingFilter{Group: who.Group, UserName: who.UserName}, 0, 1)
	if len(past.List) == 0 {
		return nil, fmt.Errorf("the user is not online, and no end is known: %w", inspect.ErrNotFound)
	}
	v.shared.mu.RLock()
	defer v.shared.mu.RUnlock()
	return []inspect.Explanation{v.explainRLocked(past.List[0].Record.Key, who.UserName)}, nil
}

// explainedOnline is explained for an inside address, or for the addresses where the user is online,
// explainedMost at most.
func (v *Desk) explainedOnline(who inspect.Customer) (list []inspect.Explanation, err error) {
	v.shared.mu.RLock()
	defer v.shared.mu.RUnlock()
	if err := v.readiness.restoredRLocked(); err != nil {
		return nil, err
	}
	if who.UserName == "" {
		key := subscriber.Key{Group: who.Group, Inside: who.Inside}
		g, err := v.keyGroupLocked(key)
		if err != nil {
			return nil, err
		}
		return []inspect.Explanation{v.explainRLocked(subscriber.Key{Group: g.Name, Inside: who.Inside}, "")}, nil
	}
	f := inspect.SubscriberFilter{Group: who.Group, UserName: who.UserName}
	for key, s := range v.onlineRLocked(&f, subscriber.Key{}) {
		if v.matchRLocked(&f, s) {
			list = append(list, v.explainRLocked(key, who.UserName))
		}
		if len(list) == explainedMost {
			break
		}
	}
	return list, nil
}

// explainRLocked explains an address; of a user, "" for whoever is there.
func (v *Desk) explainRLocked(key subscriber.Key, user string) inspect.Explanation {
	e := inspect.Explanation{Key: key}
	b, bound := v.shared.life.Engine().Live(key.Group, key.Inside)
	s := v.shared.life.Slot(key.Inside)
	if s != nil && s.Online() && s.Group() == key.Group && (user == "" || s.Packed().UserName() == user) {
		view := v.reports.viewLocked(s)
		e.Subscriber = &view
	}
	if bound && s != nil && !s.Awaited() && (user == "" || b.UserName == user) {
		view := v.bindingViewLocked(b)
		e.Binding = &view
	}
	if e.Subscriber == nil && e.Binding == nil {
		return e // the sessions are of others
	}
	e.Sessions = v.kernel.Counts(key.Inside)
	e.Limits = v.limitsRLocked(&e)
	return e
}

// limitsRLocked returns the limits of an address, with their use.
func (v *Desk) limitsRLocked(e *inspect.Explanation) (list []inspect.LimitUse) {
	now := v.shared.now()
	since := now.Add(-refusedFor)
	if e.Subscriber != nil && e.Subscriber.StartedAt.After(since) {
		since = e.Subscriber.StartedAt
	}
	refused := v.reports.refused.of(e.Inside, since)
	add := func(name string, most, used int, measured bool) {
		if most > 0 {
			list = append(list, inspect.LimitUse{Limit: name, Most: most, Used: used, Measured: measured, RefusedAt: refused[name]})
		}
	}
	var limits nat.Limits
	if g := v.shared.groups[e.Group]; g != nil {
		limits = g.Config.Limits
	}
	var ports nat.PortUse
	if e.Binding != nil {
		ports = e.Binding.PortsInUse
	}
	add(nat.LimitSessions.String(), limits.Sessions, e.Sessions.Began, true)
	add(nat.LimitNewSessions.String(), limits.NewSessionsPerSecond, 0, false)
	add(nat.LimitTCPPorts.String(), limits.TCPPorts, ports.TCP, true)
	add(nat.LimitUDPPorts.String(), limits.UDPPorts, ports.UDP, true)
	add(inspect.LimitMaxSessions, v.maxSessions, e.Sessions.Began, true)
	if e.Binding != nil {
		add(inspect.LimitBlockPorts, portsOf(&e.Binding.Binding), ports.Largest(), true)
	}
	return list
}

// addEnding adds the last end of the user, where one is asked for or online: the last one at the
// address may be of its previous holder. Else that one is added.
func (v *Desk) addEnding(e *inspect.Explanation, who inspect.Customer) {
	f := inspect.EndingFilter{Group: e.Group, Inside: netip.PrefixFrom(e.Inside, e.Inside.BitLen())}
	switch {
	case who.UserName != "":
		f = inspect.EndingFilter{Group: who.Group, UserName: who.UserName}
	case e.Subscriber != nil && e.Subscriber.UserName != "":
		f = inspect.EndingFilter{Group: e.Group, UserName: e.Subscriber.UserName}
	}
	past := v.reports.endings.page(&f, 0, 1)
	e.Since = past.Since
	if len(past.List) > 0 {
		e.LastEnding = &past.List[0]
	}
}

// addMappings adds the static mappings of the address, and of its user.
func (v *Desk) addMappings(ctx context.Context, e *inspect.Explanation) {
	filters := []inspect.MappingFilter{{Group: e.Group, Inside: netip.PrefixFrom(e.Inside, e.Inside.BitLen())}}
	if e.Subscriber != nil && e.Subscriber.UserName != "" {
		filters = append(filters, inspect.MappingFilter{Group: e.Group, UserName: e.Subscriber.UserName})
	}
	for _, f := range filters {
		if left := mappedMost - len(e.Mappings); left > 0 {
			more, _, err := v.Mappings(ctx, f, inspect.MappingKey{}, left)
			if err != nil {
				return
			}
			e.Mappings = append(e.Mappings, more...)
		}
	}
}

// addNAS adds the NAS of the subscriber, or of the last one, if the database tells.
func (v *Desk) addNAS(ctx context.Context, e *inspect.Explanation) {
	var id subscriber.SessionID
	switch {
	case e.Subscriber != nil:
		id = e.Subscriber.SessionID
	case e.LastEnding != nil:
		id = e.LastEnding.Record.SessionID
	}
	if id.NAS == "" || id.Client == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, nasWithin)
	defer cancel()
	list, err := v.NASes(ctx, inspect.NASFilter{Client: id.Client, Name: id.NAS}, inspect.NASKey{}, 1)
	if err == nil && len(list) == 1 {
		e.NAS = &list[0]
	}
}

// nasWithin bounds the wait for the database, without which the rest can be told.
const nasWithin = 2 * time.Second
