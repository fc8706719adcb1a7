package session

import (
	"context"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// NASes returns up to limit NASes after the key after: those that the database
// knows, and those of online subscribers.
func (v *Backend) NASes(ctx context.Context, f inspect.NASFilter, after inspect.NASKey, limit int) ([]inspect.NAS, error) {
	online, err := v.onlineByNAS()
	if err != nil {
		return nil, err
	}
	known, err := v.store.NASes(ctx)
	if err != nil {
		return nil, unavailable(err)
	}
	page := topN[inspect.NAS]{limit: limit, compare: func(a, b inspect.NAS) int { return a.Compare(b.NASKey) }}
	add := func(n inspect.NAS) {
		n.Subscribers, n.Endings = online[n.NASKey], v.reports.endings.wave(n.NASKey)
		if f.Match(n.NASKey) && n.Compare(after) > 0 {
			page.add(n)
		}
		delete(online, n.NASKey)
	}
	for i := range known {
		add(nasView(&known[i]))
	}
	for key := range online {
		add(inspect.NAS{NASKey: key})
	}
	return page.kept, nil
}

// onlineByNAS returns the number of online subscribers by NAS. Records made by
// hand have none.
func (v *Backend) onlineByNAS() (map[inspect.NASKey]int, error) {
	v.shared.mu.RLock()
	defer v.shared.mu.RUnlock()
	if err := v.readiness.restoredRLocked(); err != nil {
		return nil, err
	}
	return v.shared.life.Online().ByNAS(), nil
}

// OnlineOf returns the number of online subscribers of a client, or of the
// clients of a realm by its name. It does not wait for the Manager's lock.
func (m *Manager) OnlineOf(client string) int { return m.reports.clients.of(client) }

func nasView(n *subscriberdb.NAS) inspect.NAS {
	v := inspect.NAS{
		NASKey:      inspect.NASKey(n.NASName),
		LastHeard:   n.LastHeard,
		Clock:       inspect.NASClock{Offset: n.Offset, Known: n.Known},
		LastRestart: n.Restarted,
		Refused:     n.Refused,
		SameAs:      inspect.NASKey(n.SameAs),
	}
	if n.Unheeded != 0 {
		v.Clock = inspect.NASClock{Offset: n.Unheeded, Known: true, Unheeded: true}
	}
	return v
}
