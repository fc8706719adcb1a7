package conntrack

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/sessiond/sessiond/internal/addrrange"
)

// Tuple is one direction of a conntrack entry. For ICMP the source port holds
// the query identifier and the destination port type and code.
type Tuple struct {
	Src, Dst         netip.Addr
	SrcPort, DstPort uint16
	Protocol         uint8 // IANA number: 1 ICMP, 6 TCP, 17 UDP
}

// Entry is one conntrack entry as the kernel reports it.
type Entry struct {
	Orig, Reply    Tuple
	Zone           uint16        // of the original direction; 0 is the default zone
	ID             uint32        // kernel's identifier of the entry, so that a delete never hits a successor
	Status         uint32        // StatusSeenReply and others
	TCPState       uint8         // kernel enum tcp_conntrack; 0 when not TCP
	Timeout        time.Duration // 0 while a flowtable carries the flow: the kernel does not tell it, nor the TCP state
	Packets, Bytes uint64        // both directions; 0 when nf_conntrack_acct is off
	Labels         Labels
}

// LabelCount is the number of labels that an entry may have (nft's ct label).
const LabelCount = 128

// Labels has a bit for each label of an entry, in 32-bit words of the host's byte order.
type Labels [LabelCount / 8]byte

// Label returns the Labels of one label, from 0 to LabelCount-1.
func Label(n int) (l Labels) {
	word := l[n/32*4:][:4]
	binary.NativeEndian.PutUint32(word, 1<<(n%32))
	return l
}

// Or adds labels.
func (l *Labels) Or(more Labels) {
	for i := range l {
		l[i] |= more[i]
	}
}

// Has reports whether all of some labels are set.
func (l Labels) Has(some Labels) bool {
	both := l
	both.Or(some)
	return both == l
}

// Bits of an Entry's Status, the kernel's enum ip_conntrack_status.
const (
	StatusExpected              = 1 << 0 // a helper of another entry expected the flow
	StatusSeenReply             = 1 << 1
	StatusAssured               = 1 << 2
	StatusConfirmed             = 1 << 3 // the entry was there before this packet
	StatusSourceTranslated      = 1 << 4 // IPS_SRC_NAT
	StatusDestinationTranslated = 1 << 5 // IPS_DST_NAT

	StatusOffloaded         = 1 << 14 // a flowtable carries the flow (IPS_OFFLOAD)
	StatusOffloadedHardware = 1 << 15 // in hardware (IPS_HW_OFFLOAD)
)

// An entry inside this package.

// key identifies an IPv4 entry in the kernel: the tuple and the zone of its original
// direction. Sixteen bytes without padding.
type key struct {
	src, dst     uint32
	sport, dport uint16 // ICMP: identifier; type and code
	zone         uint16
	proto        uint16
}

// flow is one parsed entry. Parsing into it allocates nothing.
type flow struct {
	orig, reply    key
	id             uint32
	status         uint32
	timeout        uint32 // seconds
	packets, bytes uint64
	tcpState       uint8
	tuples         uint8 // bits of the tuples parsed, see bothTuples
	labels         Labels
}

// plain reports whether neither address is translated.
func (f *flow) plain() bool { return f.reply.src == f.orig.dst && f.reply.dst == f.orig.src }

// entry converts the flow to the exported type.
func (f *flow) entry() Entry {
	return Entry{
		Orig: f.orig.tupleValue(), Reply: f.reply.tupleValue(),
		Zone: f.orig.zone, ID: f.id, Status: f.status, TCPState: f.tcpState,
		Timeout: time.Duration(f.timeout) * time.Second,
		Packets: f.packets, Bytes: f.bytes, Labels: f.labels,
	}
}

func (k *key) tupleValue() Tuple {
	return Tuple{
		Src: addrrange.Address(k.src), Dst: addrrange.Address(k.dst),
		SrcPort: k.sport, DstPort: k.dport, Protocol: uint8(k.proto),
	}
}

// fromEntry returns false when e is not IPv4. It takes only the original tuple.
func (f *flow) fromEntry(e Entry) bool {
	*f = flow{id: e.ID}
	f.orig = key{sport: e.Orig.SrcPort, dport: e.Orig.DstPort, zone: e.Zone, proto: uint16(e.Orig.Protocol)}
	var ok1, ok2 bool
	f.orig.src, ok1 = fromAddr(e.Orig.Src)
	f.orig.dst, ok2 = fromAddr(e.Orig.Dst)
	return ok1 && ok2
}

// fromAddr returns false for an address that is not IPv4.
func fromAddr(a netip.Addr) (uint32, bool) {
	a = a.Unmap()
	if !a.Is4() {
		return 0, false
	}
	return addrrange.Number(a), true
}

// Addresses.

// rangesOf returns the addresses of prefixes.
func rangesOf(prefixes []netip.Prefix) (addrrange.Set, error) {
	for _, p := range prefixes {
		if !p.IsValid() || !p.Addr().Is4() {
			return nil, fmt.Errorf("inside prefix %v is not IPv4", p)
		}
	}
	return addrrange.Of(prefixes), nil
}

// addrSet is a set of addresses, such as the inside prefixes.
type addrSet interface{ Contains(addr uint32) bool }

// askedAddrs is the set of addresses that a caller asks about.
type askedAddrs map[uint32]struct{}

// Contains reports whether an address is asked about.
func (a askedAddrs) Contains(addr uint32) bool {
	_, ok := a[addr]
	return ok
}

func newAsked(addrs []netip.Addr) (askedAddrs, error) {
	set := make(askedAddrs, len(addrs))
	for _, a := range addrs {
		v, ok := fromAddr(a)
		if !ok {
			return nil, fmt.Errorf("address %v is not IPv4", a)
		}
		set[v] = struct{}{}
	}
	return set, nil
}

// maxOwners is the number of addresses in an entry: source and destination, twice.
const maxOwners = 4

// insideAddrs are the distinct addresses of one entry that lie in a set: usually one, two
// for a hairpin entry.
type insideAddrs struct {
	addrs [maxOwners]uint32
	n     uint8
}

func (f *flow) owners(in addrSet) insideAddrs {
	var o insideAddrs
	o.add(f.orig.src, in)
	o.add(f.reply.src, in)
	o.add(f.orig.dst, in)
	o.add(f.reply.dst, in)
	return o
}

func (o *insideAddrs) add(addr uint32, in addrSet) {
	if slices.Contains(o.list(), addr) || !in.Contains(addr) {
		return
	}
	o.addrs[o.n] = addr
	o.n++
}

func (o *insideAddrs) list() []uint32 { return o.addrs[:o.n] }

// anyIn reports whether one of the addresses lies in a set.
func (o *insideAddrs) anyIn(set addrSet) bool { return slices.ContainsFunc(o.list(), set.Contains) }
