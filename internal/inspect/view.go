package inspect

import (
	"cmp"
	"net/netip"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// Subscriber is one online subscriber: its record and its binding.
type Subscriber struct {
	subscriber.Record
	Binding *Binding // the live binding; nil while there is none
	Pending bool     // online, but the pool had no free block yet
}

// Binding is one binding with its number of sessions.
type Binding struct {
	nat.Binding
	Sessions int            // present conntrack entries of the subscriber; 0 once Held
	End      subscriber.End // of a Draining or Cut binding: why; that of a Held one is in its receipt

	PortsMeasured bool // the fields below are set: of live bindings, not in subscribers and events

	// Ports that the subscriber uses now, and the most that it used at a time.
	PortsInUse, PortsPeak nat.PortUse
}

// BindingKey names one binding and orders bindings. An inside address has at
// most one live binding, but may have held ones beside it.
type BindingKey struct {
	Group   string
	Inside  netip.Addr
	Outside netip.Addr
	First   nat.Port
}

// KeyOf returns the key of a binding.
func KeyOf(b *nat.Binding) BindingKey {
	return BindingKey{Group: b.Group, Inside: b.Inside, Outside: b.Outside, First: b.First}
}

// Compare orders by group, inside address, outside address, first port. The
// zero key comes before every other.
func (k BindingKey) Compare(o BindingKey) int {
	return cmp.Or(
		cmp.Compare(k.Group, o.Group),
		k.Inside.Compare(o.Inside),
		k.Outside.Compare(o.Outside),
		cmp.Compare(k.First, o.First),
	)
}

// CompareKeys orders subscribers by group, then inside address. The zero key
// comes before every other.
func CompareKeys(a, b subscriber.Key) int {
	return cmp.Or(cmp.Compare(a.Group, b.Group), a.Inside.Compare(b.Inside))
}

// Why returns why the record of the binding ended, or the binding is being cut; the zero End if
// neither happened.
func (b *Binding) Why() subscriber.End {
	if b.Receipt != nil && b.End == (subscriber.End{}) {
		return b.Receipt.End
	}
	return b.End
}

// NameKey names a subscriber in the order of User-Names, and of inside addresses where these are
// equal. The zero key comes before every other.
type NameKey struct {
	UserName string // raw octets
	Inside   netip.Addr
}

// Session is one conntrack entry of a subscriber. For ICMP echo the inside and
// outside ports hold the query identifier and the remote port is 0.
type Session struct {
	Group string
	nat.Session
}
