package radiusacct

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"

	"golang.org/x/time/rate"

	"github.com/sessiond/sessiond/internal/addrrange"
	"github.com/sessiond/sessiond/internal/prefixtable"
	"github.com/sessiond/sessiond/internal/radiusacct/radsec"
	"github.com/sessiond/sessiond/internal/radiusacct/wire"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/throttle"
)

// A Client is a RADIUS client (a BNG, or a proxy before several) that may send accounting.
// A datagram's client is found by its source address alone, a RadSec connection's by its
// certificate alone.
type Client struct {
	// Name is the label in events, metrics and logs. Several prefixes may share
	// a name: they are then one client. Required.
	Name string
	// Prefix holds the source addresses of datagrams; the longest prefix wins.
	// Required unless there is a Certificate.
	Prefix netip.Prefix
	// Secret is shared with the client. Required with Prefix. RadSec has a fixed secret of
	// its own (RFC 6614 section 2.3).
	Secret []byte
	// PreviousSecret is accepted too, for the time in which the NASes behind the client get
	// a new one.
	PreviousSecret []byte
	// Certificate identifies the client on RadSec connections. With the zero value it
	// cannot connect.
	Certificate radsec.Certificate
	// RequireMessageAuthenticator leaves accounting without Message-Authenticator
	// unanswered.
	RequireMessageAuthenticator bool
	// AcknowledgeIncomplete answers, and ignores, requests without
	// Acct-Status-Type or Acct-Session-Id, for NASes that would repeat them forever.
	AcknowledgeIncomplete bool
	// IgnoreStatusServer leaves the client's Status-Server unanswered.
	IgnoreStatusServer bool

	// Inside holds the inside addresses, IPv4, whose subscribers the client may report.
	// Events about others are marked ForeignInside. nil: all.
	Inside []netip.Prefix

	// Realm names the NASes of several clients that report the same ones: two proxies
	// before one BNG. A session that one of them reports may continue through the others.
	// Empty: the client's NASes are its own.
	Realm string
	// NASIdentity tells one NAS from another within the client, or its realm.
	NASIdentity wire.NASIdentity
	// Restarts is the policy for Accounting-On and -Off of its NASes.
	Restarts subscriber.RestartPolicy
	// CountServices makes a service within a session keep its subscriber online,
	// as a link of a multilink does; else services are ignored.
	CountServices bool
	// ServiceMarks are attributes that mark the accounting of a service, besides the known
	// ones of the vendors.
	ServiceMarks []wire.VendorAttribute
}

// realmName returns the name under which the client's NASes are known.
func (c *Client) realmName() string {
	if c.Realm != "" {
		return c.Realm
	}
	return c.Name
}

func (c Client) validate() error {
	switch {
	case c.Name == "":
		return errors.New("name is empty")
	case !c.Prefix.IsValid() && c.Certificate == radsec.Certificate{}:
		return fmt.Errorf("client %q: neither a valid prefix nor a certificate", c.Name)
	case c.Prefix.IsValid() && len(c.Secret) == 0:
		return fmt.Errorf("client %q: secret is empty", c.Name)
	case slices.ContainsFunc(c.Inside, func(p netip.Prefix) bool { return !p.IsValid() || !p.Addr().Is4() }):
		return fmt.Errorf("client %q: an inside prefix is not IPv4", c.Name)
	case !c.NASIdentity.Valid():
		return fmt.Errorf("client %q: unknown NAS identity %d", c.Name, c.NASIdentity)
	}
	return nil
}

// A client is a configured client in use.
type client struct {
	Client
	sender wire.Sender
	bounds insideBounds
	peer   *clientState
	realm  *realm
}

// A clientState is the server's state of a client name. It outlives reloads.
type clientState struct {
	name       string
	duplicates *replyCache
	statuses   *rate.Limiter // Status-Server that are answered
	complaints throttle.Throttle
}

// A realm is the server's state of the clients that report the same NASes; most clients
// have one of their own. Their requests wait in common queues, because a session may be
// reported through several of them and its events keep their order. It outlives reloads.
type realm struct {
	name    string
	queues  []clientQueue // one in each queue of the server, under its lock
	waiting atomic.Int64  // requests in the queues
	stormed atomic.Int64  // when there was a storm last, in nanoseconds since 1970
}

func newRealm(name string, queues int) *realm {
	r := &realm{name: name, queues: make([]clientQueue, queues)}
	for i := range r.queues {
		r.queues[i].realm = r
	}
	return r
}

// A clientTable finds clients by source address and by certificate. It never
// changes.
type clientTable struct {
	prefixes     prefixtable.Table[*client]
	certificates radsec.Table[*client]
	peers        map[string]*clientState
	realms       map[string]*realm
}

// newClientTable builds a table. peerOf and realmOf find or make the state of a name.
func newClientTable(clients []Client, peerOf func(name string) *clientState, realmOf func(name string) *realm) (*clientTable, error) {
	t := &clientTable{
		peers:  make(map[string]*clientState),
		realms: make(map[string]*realm),
	}
	for _, c := range clients {
		if err := c.validate(); err != nil {
			return nil, err
		}
		if t.peers[c.Name] == nil {
			t.peers[c.Name] = peerOf(c.Name)
		}
		name := c.realmName()
		if t.realms[name] == nil {
			t.realms[name] = realmOf(name)
		}
		sender := wire.Sender{
			Name: c.Name, Realm: name, NASIdentity: c.NASIdentity, Restarts: c.Restarts, CountServices: c.CountServices,
		}
		if err := t.add(&client{Client: c, sender: sender, bounds: newInsideBounds(c.Inside), peer: t.peers[c.Name], realm: t.realms[name]}); err != nil {
			return nil, fmt.Errorf("client %q: %w", c.Name, err)
		}
	}
	return t, nil
}

func (t *clientTable) add(c *client) error {
	if c.Prefix.IsValid() {
		if err := t.addPrefix(c); err != nil {
			return err
		}
	}
	if c.Certificate == (radsec.Certificate{}) {
		return nil
	}
	onStream := *c
	onStream.Secret, onStream.PreviousSecret = []byte(radsec.Secret), nil
	return t.certificates.Add(c.Certificate, c.Name, &onStream)
}

func (t *clientTable) addPrefix(c *client) error {
	if other, taken := t.prefixes.At(c.Prefix); taken {
		return fmt.Errorf("prefix %s is already that of client %q", c.Prefix.Masked(), other.Name)
	}
	t.prefixes.Put(c.Prefix, c)
	return nil
}

// The subscribers that a client may report.

// insideBounds are the inside addresses whose subscribers a client may report; nil for
// all. It never changes.
type insideBounds addrrange.Set

// newInsideBounds returns the bounds of IPv4 prefixes; nil for nil.
func newInsideBounds(prefixes []netip.Prefix) insideBounds {
	if prefixes == nil {
		return nil
	}
	return insideBounds(addrrange.Of(prefixes))
}

// mark marks those of a request's events whose inside address is out of bounds. b is not nil.
func (b insideBounds) mark(first *subscriber.Event, more []subscriber.Event) {
	first.ForeignInside = !b.allow(first.Inside)
	for i := range more {
		more[i].ForeignInside = !b.allow(more[i].Inside)
	}
}

// allow reports whether the client may report the address. An event without an address is
// allowed.
func (b insideBounds) allow(a netip.Addr) bool {
	if !a.IsValid() {
		return true
	}
	return addrrange.Set(b).Contains(addrrange.Number(a))
}
