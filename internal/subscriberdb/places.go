package subscriberdb

import (
	"cmp"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// places are how many subscribers RADIUS clients may have online.
type places struct {
	limits map[string]int
	online func(client string) int
}

// SetPlaces replaces how many subscribers each client may have online, by its name; one that
// is not there as many as it likes. So a client's share of the pools and of Redis is bounded.
// online tells how many a client has, or all clients of a realm by the realm's name. That may
// be a moment old, and is called for every event of a client with a limit.
func (c *clientSet) SetPlaces(limits map[string]int, online func(client string) int) {
	c.places.Store(&places{limits, online})
}

// full reports whether the client of an event has as many subscribers as it may. known is the
// name under which its sessions are known.
func (c *clientSet) full(ev *subscriber.Event, known string) bool {
	p := c.places.Load()
	if p == nil {
		return false
	}
	limit, limited := p.limits[cmp.Or(ev.Via, known)]
	return limited && p.online(known) >= limit
}
