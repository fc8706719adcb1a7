package radiusacct

import (
	"net/netip"
	"sync"
	"time"
)

// cacheLifetime is how long a reply is kept for retransmissions: RFC 5080
// section 2.2.2 wants 5 to 30 seconds.
const cacheLifetime = 15 * time.Second

// exchangeOverhead is what an exchange without Proxy-State costs in memory, its
// place in the map included.
const exchangeOverhead = 384

// An exchangeKey is what a retransmission has in common with its original,
// apart from the Request Authenticator.
type exchangeKey struct {
	source     netip.AddrPort
	local      netip.Addr // address that was asked
	socket     uint16
	identifier byte
}

// An exchange is a request and, once it is known, the reply to it. Until then
// the reply belongs to whoever works on the request; afterwards nobody writes it.
type exchange struct {
	key           exchangeKey
	authenticator [16]byte
	reply         packet
	replied       bool
	expires       time.Time
	older, newer  *exchange // among the replied

	short [headerLength]byte // room for a reply without attributes
}

// duplicates is the duplicate cache of one client. Replies are forgotten when
// they expire, or oldest first when the limit is reached: a client that floods
// pushes out replies of its own, never those of another.
type duplicates struct {
	limit int // octets

	mu             sync.Mutex
	exchanges      map[exchangeKey]*exchange
	size           int // octets
	oldest, newest *exchange
}

// sighting is what the cache knows of a request.
type sighting uint8

const (
	fresh      sighting = iota // never seen: the exchange was entered
	inProgress                 // being worked on
	answered                   // the exchange holds the reply
	full                       // no room, for all that could go is in progress
)

func newDuplicates(limit int) *duplicates {
	return &duplicates{limit: limit, exchanges: make(map[exchangeKey]*exchange)}
}

// begin looks x up by its key and enters it when it is new. The same key under
// another authenticator is a new request too, and the old one is forgotten even
// while in progress: its sender no longer waits for it. The exchange returned
// holds the reply if there is one.
func (d *duplicates) begin(x *exchange, now time.Time) (*exchange, sighting) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.expireLocked(now)
	if old := d.exchanges[x.key]; old != nil {
		switch {
		case old.authenticator != x.authenticator:
			d.removeLocked(old)
		case old.replied:
			return old, answered
		default:
			return old, inProgress
		}
	}
	for d.size+x.cost() > d.limit {
		if d.oldest == nil {
			return nil, full
		}
		d.removeLocked(d.oldest)
	}
	d.exchanges[x.key] = x
	d.size += x.cost()
	return x, fresh
}

// complete keeps x's reply for retransmissions. It reports false when the
// exchange was replaced meanwhile, so that its reply is no longer wanted.
func (d *duplicates) complete(x *exchange, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.exchanges[x.key] != x {
		return false
	}
	x.replied = true
	x.expires = now.Add(cacheLifetime)
	x.older = d.newest
	if d.newest == nil {
		d.oldest = x
	} else {
		d.newest.newer = x
	}
	d.newest = x
	return true
}

// abandon forgets a request in progress, so that its retransmission is new.
func (d *duplicates) abandon(x *exchange) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.exchanges[x.key] == x {
		d.removeLocked(x)
	}
}

// expire forgets the replies that are too old.
func (d *duplicates) expire(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.expireLocked(now)
}

func (d *duplicates) expireLocked(now time.Time) {
	for d.oldest != nil && !now.Before(d.oldest.expires) {
		d.removeLocked(d.oldest)
	}
}

func (d *duplicates) removeLocked(x *exchange) {
	delete(d.exchanges, x.key)
	d.size -= x.cost()
	if !x.replied {
		return
	}
	if x.older == nil {
		d.oldest = x.newer
	} else {
		x.older.newer = x.newer
	}
	if x.newer == nil {
		d.newest = x.older
	} else {
		x.newer.older = x.older
	}
	x.older, x.newer = nil, nil
}

func (x *exchange) cost() int { return exchangeOverhead + len(x.reply) }
