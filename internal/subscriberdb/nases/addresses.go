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
	// conflictTime is how long a NAS name counts as that of several NASes after an
	// address came back under it: longer than a quiet NAS may be silent.
	conflictTime = 24 * time.Hour
	// freshDelay is how late an event may have come that tells where its NAS is. One
	// that waited in a spool tells where it was.
	freshDelay = time.Minute
	// maxNASAddresses bounds the addresses known of a NAS name.
	maxNASAddresses = 8
)

// Addresses notices names that several NASes have: a factory default, mostly.
// Addresses that alternate tell so. A NAS that is given another address does
// not come back under the old one.
type Addresses struct {
	mu     sync.Mutex
	names  map[codec.NASName]*nasName
	shares quota.Shares // of the clients; that of none is set with the first name
}

// nasName is one name and its addresses.
type nasName struct {
	seen     []netip.Addr // different ones, the latest last
	conflict time.Time    // when one came back; zero for never
}

// Note takes in where an event's NAS says that it is. It reports whether several NASes
// have its name, and whether this very event is one more sign of it.
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

// heard takes in the latest address, and reports whether it came back.
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
