package nases

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/quota"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
)

const (
	// conflictTime is the time for which a NAS name counts as used by several NASes after
	// an address was seen again: longer than a NAS with few subscribers may be silent.
	conflictTime = 24 * time.Hour
	// freshDelay is the largest delay of an event whose NAS-IP-Address is used. An event
	// from a relay's spool may have an earlier address.
	freshDelay = time.Minute
	// maxNASAddresses bounds the addresses kept of a NAS name.
	maxNASAddresses = 8
)

// Addresses detects names that several NASes use, mostly a factory default, by addresses
// that alternate. A NAS whose address was changed does not use the old one again.
type Addresses struct {
	mu     sync.Mutex
	names  map[codec.NASName]*nasName
	shares quota.Shares // of the clients; Alone is set with the first name
}

// nasName is one name and its addresses.
type nasName struct {
	seen     []netip.Addr // distinct addresses, the latest last
	conflict time.Time    // when an earlier address was last seen again; zero for never
}

// Note takes the address of an event's NAS. It reports whether several NASes use the name,
// and whether this event is a new sign of it.
func (n *Addresses) Note(ev *subscriber.Event, clock func() time.Time) (conflict, sign bool) {
	if !ev.NASAddress.IsValid() {
		return false, false // a name without addresses cannot alternate
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	key := codec.NASOf(ev.SessionID)
	name := n.names[key]
	if name == nil {
		if n.names == nil {
			n.names, n.shares.Alone = make(map[codec.NASName]*nasName), maxOfClient
		}
		if !n.shares.Room(key.Client) {
			return false, false
		}
		n.names[codec.NASName{Client: strings.Clone(key.Client), Name: strings.Clone(key.Name)}] = &nasName{seen: []netip.Addr{ev.NASAddress}}
		n.shares.Add(key.Client, 1)
		return false, false
	}
	if name.conflict.IsZero() && name.seen[len(name.seen)-1] == ev.NASAddress {
		return false, false // the usual case, which needs no clock
	}
	now := clock()
	if ev.Delay <= freshDelay && name.heard(ev.NASAddress) {
		name.conflict, sign = now, true
	}
	return !name.conflict.IsZero() && now.Sub(name.conflict) < conflictTime, sign
}

// heard takes the latest address, and reports whether it is an earlier one again.
func (n *nasName) heard(addr netip.Addr) (back bool) {
	last := len(n.seen) - 1
	if n.seen[last] == addr {
		return false
	}
	i := slices.Index(n.seen, addr)
	if i >= 0 {
		n.seen = slices.Delete(n.seen, i, i+1)
	} else if len(n.seen) == maxNASAddresses {
		n.seen = slices.Delete(n.seen, 0, 1)
	}
	n.seen = append(n.seen, addr)
	return i >= 0
}
