package subscriber

import (
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unique"
)

// Packed is a Record in a third of its memory, for callers that keep many.
// Values that many records share are kept once, and the other texts in one
// string. It is immutable but for Refresh. The zero Packed is the zero Record.
type Packed struct {
	origin  unique.Handle[origin]
	text    string // prefix of the Identity, User-Name, Calling-Station-Id, Acct-Session-Id, Class
	name    uint16 // end of the User-Name in text
	calling uint16 // end of the Calling-Station-Id
	session uint16 // end of the Acct-Session-Id
	flags   packedFlags
	held    Reason
	inside  [4]byte
	started instant
	updated instant
	expires instant
	input   uint64
	output  uint64
	version Version
	rare    *rareFields
}

// origin holds the fields that all records of one NAS share.
type origin struct {
	group, client, nas string
	address            netip.Addr
}

// rareFields holds the fields that few records have.
type rareFields struct {
	inside              netip.Addr // if it is not IPv4
	leg                 netip.Addr
	version             string // if it is not in the form of a feed identifier
	name, calling, id   string // if they are too long for Packed.text
	class               string
	framedIPv6Addresses []netip.Addr
	framedIPv6Prefixes  []netip.Prefix
	delegatedPrefixes   []netip.Prefix
	multiSessionID      string
	links               []string
	moreClasses         []string
}

type packedFlags uint8

const (
	packedInside4 packedFlags = 1 << iota
	packedUnconfirmed
	packedVersion // version gives the exact text of the Version
	packedLong    // the texts are in rare
)

// Pack returns the record in its packed form.
func (r *Record) Pack() Packed {
	var p Packer
	return p.Pack(r)
}

// Packer packs records in sequence. A value equal to that of the previous
// record, as the NAS and the version mostly are, is not looked up again.
type Packer struct {
	origin  origin
	handle  unique.Handle[origin] // of origin, if that is not the zero one
	id      string
	version Version // of id
	exact   bool    // version gives the exact text of id
}

// Pack is Record.Pack.
func (k *Packer) Pack(r *Record) Packed {
	p := Packed{
		started: instantOf(r.StartedAt), updated: instantOf(r.UpdatedAt), expires: instantOf(r.ExpiresAt),
		input: r.InputOctets, output: r.OutputOctets, held: r.RemovalHeld,
	}
	switch o := (origin{r.Group, r.Client, r.NAS, r.NASAddress}); o {
	case origin{}:
	case k.origin:
		p.origin = k.handle
	default:
		p.origin = unique.Make(o)
		k.handle, k.origin = p.origin, p.origin.Value() // copied strings, which no caller shares
	}
	if r.Inside.Is4() {
		p.inside, p.flags = r.Inside.As4(), p.flags|packedInside4
	}
	if r.Unconfirmed {
		p.flags |= packedUnconfirmed
	}
	if k.id != r.Version {
		k.id, k.version = r.Version, ParseVersion(r.Version)
		k.exact = r.Version == k.version.String()
	}
	if p.version = k.version; k.exact {
		p.flags |= packedVersion
	}
	prefix := r.identityPrefix()
	calling := len(prefix) + len(r.UserName) + len(r.CallingStationID)
	session := calling + len(r.AcctSessionID)
	switch {
	case session > math.MaxUint16:
		p.flags |= packedLong
	case calling == 0: // a concatenation with one non-empty part would keep that part's whole backing string
		p.session = uint16(session)
		p.text = strings.Clone(r.AcctSessionID + r.Class)
	default:
		p.name, p.calling, p.session = uint16(len(prefix)+len(r.UserName)), uint16(calling), uint16(session)
		p.text = prefix + r.UserName + r.CallingStationID + r.AcctSessionID + r.Class
	}
	p.rare = r.rare(p.flags)
	return p
}

// rare returns the fields that have no place in Packed itself, nil if all are
// empty.
func (r *Record) rare(flags packedFlags) *rareFields {
	if flags&(packedInside4|packedVersion|packedLong) == packedInside4|packedVersion &&
		!r.Leg.IsValid() && r.FramedIPv6Addresses == nil && r.FramedIPv6Prefixes == nil && r.DelegatedPrefixes == nil &&
		r.MultiSessionID == "" && r.Links == nil && r.MoreClasses == nil {
		return nil
	}
	f := rareFields{
		leg:                 r.Leg,
		framedIPv6Addresses: r.FramedIPv6Addresses,
		framedIPv6Prefixes:  r.FramedIPv6Prefixes,
		delegatedPrefixes:   r.DelegatedPrefixes,
		multiSessionID:      r.MultiSessionID,
		links:               r.Links,
		moreClasses:         r.MoreClasses,
	}
	if flags&packedInside4 == 0 {
		f.inside = r.Inside
	}
	if flags&packedVersion == 0 {
		f.version = r.Version
	}
	if flags&packedLong != 0 {
		f.name, f.calling, f.id, f.class = r.UserName, r.CallingStationID, r.AcctSessionID, r.Class
	}
	if f.isZero() {
		return nil
	}
	return &f
}

func (f *rareFields) isZero() bool {
	return !f.inside.IsValid() && !f.leg.IsValid() && f.version == "" && f.name == "" && f.calling == "" && f.id == "" && f.class == "" &&
		f.framedIPv6Addresses == nil && f.framedIPv6Prefixes == nil && f.delegatedPrefixes == nil &&
		f.multiSessionID == "" && f.links == nil && f.moreClasses == nil
}

// Record returns the record. Times are in UTC; times outside the years 1678 to
// 2261 are cut to the nearest within.
func (p *Packed) Record() Record {
	r := Record{
		StartedAt: p.started.time(), UpdatedAt: p.updated.time(), ExpiresAt: p.expires.time(),
		Counters:    Counters{InputOctets: p.input, OutputOctets: p.output},
		Unconfirmed: p.flags&packedUnconfirmed != 0, RemovalHeld: p.held,
	}
	r.UserName, r.CallingStationID, r.AcctSessionID, r.Class = p.texts()
	if p.origin != (unique.Handle[origin]{}) {
		o := p.origin.Value()
		r.Group, r.Client, r.NAS, r.NASAddress = o.group, o.client, o.nas, o.address
	}
	r.Inside = p.Inside()
	if p.rare != nil {
		p.rare.unpack(&r, p.flags)
	}
	if p.flags&packedVersion != 0 {
		r.Version = p.version.String()
	}
	return r
}

func (p *Packed) texts() (name, calling, id, class string) {
	if p.flags&packedLong != 0 {
		return p.rare.name, p.rare.calling, p.rare.id, p.rare.class
	}
	return p.text[min(p.calling, identityPrefixLen):p.name], p.text[p.name:p.calling], p.text[p.calling:p.session], p.text[p.session:]
}

func (f *rareFields) unpack(r *Record, flags packedFlags) {
	r.Leg, r.Version, r.MultiSessionID = f.leg, f.version, f.multiSessionID
	r.FramedIPv6Addresses = slices.Clip(f.framedIPv6Addresses)
	r.FramedIPv6Prefixes = slices.Clip(f.framedIPv6Prefixes)
	r.DelegatedPrefixes = slices.Clip(f.delegatedPrefixes)
	r.Links = slices.Clip(f.links)
	r.MoreClasses = slices.Clip(f.moreClasses)
}

// Refresh applies a Partial change to the record, without unpacking it.
func (p *Packed) Refresh(c *Packed) {
	p.updated, p.expires = c.updated, c.expires
	p.input, p.output = c.input, c.output
	p.version = c.version
	p.flags |= packedVersion // a feed writes versions in this form only
}

// Unversioned returns the record without its Version.
func (p Packed) Unversioned() Packed {
	p.version, p.flags = Version{}, p.flags&^packedVersion
	if p.rare != nil && p.rare.version != "" {
		rare := *p.rare
		rare.version, p.rare = "", &rare
	}
	return p
}

// Group returns the record's group.
func (p *Packed) Group() string {
	if p.origin == (unique.Handle[origin]{}) {
		return ""
	}
	return p.origin.Value().group
}

// Reporter returns the client and the NAS of the record's session; "" for a
// record made by hand.
func (p *Packed) Reporter() (client, nas string) {
	if p.origin == (unique.Handle[origin]{}) {
		return "", ""
	}
	o := p.origin.Value()
	return o.client, o.nas
}

// An Origin stands for the group, client, NAS and NAS address of a record, as a
// map key: records that agree in all four have the same.
type Origin struct{ of unique.Handle[origin] }

// Origin returns the record's Origin.
func (p *Packed) Origin() Origin { return Origin{p.origin} }

// Key returns the record's key.
func (p *Packed) Key() Key { return Key{Group: p.Group(), Inside: p.Inside()} }

// UserName returns the record's User-Name.
func (p *Packed) UserName() string {
	name, _, _, _ := p.texts()
	return name
}

// CallingStationID returns the record's Calling-Station-Id.
func (p *Packed) CallingStationID() string {
	_, calling, _, _ := p.texts()
	return calling
}

// AcctSessionID returns the record's Acct-Session-Id.
func (p *Packed) AcctSessionID() string {
	_, _, id, _ := p.texts()
	return id
}

// Identity is Record.Identity.
func (p *Packed) Identity() string {
	switch {
	case p.flags&packedLong != 0:
		r := p.Record()
		return r.Identity()
	case p.name > identityPrefixLen:
		return p.text[:p.name]
	}
	return p.text[:p.calling]
}

// SameSession is Record.SameSession.
func (p *Packed) SameSession(o *Packed) bool {
	return agree(p.AcctSessionID(), o.AcctSessionID()) && agree(p.UserName(), o.UserName()) &&
		(p.origin == o.origin || p.sameNAS(o))
}

func (p *Packed) sameNAS(o *Packed) bool {
	if p.origin == (unique.Handle[origin]{}) || o.origin == (unique.Handle[origin]{}) {
		return true // unknown values agree with any
	}
	a, b := p.origin.Value(), o.origin.Value()
	return agree(a.client, b.client) && agree(a.nas, b.nas)
}

// Inside returns the record's inside address.
func (p *Packed) Inside() netip.Addr {
	switch {
	case p.flags&packedInside4 != 0:
		return netip.AddrFrom4(p.inside)
	case p.rare != nil:
		return p.rare.inside
	}
	return netip.Addr{}
}

// ExpiresAt returns when the record's TTL runs out; zero for never.
func (p *Packed) ExpiresAt() time.Time { return p.expires.time() }

// Unconfirmed reports whether no BNG has confirmed the record since it was
// written back.
func (p *Packed) Unconfirmed() bool { return p.flags&packedUnconfirmed != 0 }

// Octets returns the record's octets in both directions.
func (p *Packed) Octets() uint64 { return p.input + p.output }

// RemovalHeld returns the reason of a suspended removal, ReasonNone if there is
// none.
func (p *Packed) RemovalHeld() Reason { return p.held }

// Version returns the record's version; the zero Version if the text is no feed
// identifier.
func (p *Packed) Version() Version { return p.version }

// instant is a time in nanoseconds since 1970; 0 is the zero time.
type instant int64

const noInstant instant = 0

// instantOf keeps 0 for the zero time, which many records have. The one
// nanosecond at 1970 itself is moved to the next.
func instantOf(t time.Time) instant {
	const farthest = math.MaxInt64 / int64(time.Second)
	switch sec := t.Unix(); {
	case t.IsZero():
		return noInstant
	case sec >= farthest:
		return math.MaxInt64
	case sec <= -farthest:
		return math.MinInt64
	}
	if n := instant(t.UnixNano()); n != noInstant {
		return n
	}
	return noInstant + 1
}

func (i instant) time() time.Time {
	if i == noInstant {
		return time.Time{}
	}
	return time.Unix(0, int64(i)).UTC()
}
