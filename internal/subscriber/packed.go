package subscriber

import (
	"math"
	"net/netip"
	"slices"
	"time"
	"unique"
)

// Packed is a Record in a third of its room, for those who keep many: what many
// records share is kept once, and the rest of their texts in one piece. It never
// changes. The zero Packed is the zero Record.
type Packed struct {
	origin  unique.Handle[origin]
	text    string // of the Identity the prefix, then User-Name, Calling-Station-Id, Acct-Session-Id and Class
	name    uint16 // where in text the User-Name ends
	calling uint16 // and the Calling-Station-Id
	session uint16 // and the Acct-Session-Id
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

// origin is what all records of one NAS share.
type origin struct {
	group, client, nas string
	address            netip.Addr
}

// rareFields are what few records have.
type rareFields struct {
	inside              netip.Addr // where it is not IPv4
	leg                 netip.Addr
	version             string // where it is not what a feed makes
	name, calling, id   string // where they are too long for Packed.text
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
	packedVersion // version tells it to the letter
	packedLong    // the texts are in rare
)

// Pack returns the record in little room.
func (r *Record) Pack() Packed {
	var p Packer
	return p.Pack(r)
}

// rare returns what Packed has no other room for, nil for nothing.
func (r *Record) rare(flags packedFlags) *rareFields {
	if flags&(packedInside4|packedVersion|packedLong) == packedInside4|packedVersion && r.plain() {
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

// plain reports whether the record has nothing of what few records have.
func (r *Record) plain() bool {
	return !r.Leg.IsValid() && r.FramedIPv6Addresses == nil && r.FramedIPv6Prefixes == nil &&
		r.DelegatedPrefixes == nil && r.MultiSessionID == "" && r.Links == nil && r.MoreClasses == nil
}

func (f *rareFields) isZero() bool {
	return !f.inside.IsValid() && !f.leg.IsValid() && f.version == "" && f.name == "" && f.calling == "" && f.id == "" && f.class == "" &&
		f.framedIPv6Addresses == nil && f.framedIPv6Prefixes == nil && f.delegatedPrefixes == nil &&
		f.multiSessionID == "" && f.links == nil && f.moreClasses == nil
}

// Record returns the record. Times are in UTC; those outside the years 1678 to
// 2261 come back as the nearest that lies within.
func (p *Packed) Record() Record {
	r := Record{
		StartedAt: p.started.time(), UpdatedAt: p.updated.time(), ExpiresAt: p.expires.time(),
		InputOctets: p.input, OutputOctets: p.output,
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

// Refresh makes the record what it is after a Partial change, given what that tells;
// nothing has to be unpacked for it.
func (p *Packed) Refresh(c *Packed) {
	p.updated, p.expires = c.updated, c.expires
	p.input, p.output = c.input, c.output
	p.version = c.version
	p.flags |= packedVersion // what a feed makes
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

// Reporter returns the client and the NAS that the record's session is known by; ""
// for a record made by hand.
func (p *Packed) Reporter() (client, nas string) {
	if p.origin == (unique.Handle[origin]{}) {
		return "", ""
	}
	o := p.origin.Value()
	return o.client, o.nas
}

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

// Identity is that of the record.
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

// SameSession is that of the records.
func (p *Packed) SameSession(o *Packed) bool {
	return agree(p.AcctSessionID(), o.AcctSessionID()) && agree(p.UserName(), o.UserName()) &&
		(p.origin == o.origin || p.sameNAS(o))
}

func (p *Packed) sameNAS(o *Packed) bool {
	if p.origin == (unique.Handle[origin]{}) || o.origin == (unique.Handle[origin]{}) {
		return true // what is not known cannot differ
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

// ExpiresAt returns when the database forgets the record; zero for never.
func (p *Packed) ExpiresAt() time.Time { return p.expires.time() }

// Unconfirmed reports whether no BNG has confirmed the record since it was
// written back.
func (p *Packed) Unconfirmed() bool { return p.flags&packedUnconfirmed != 0 }

// RemovalHeld returns why the record's removal is held, ReasonNone if it is not.
func (p *Packed) RemovalHeld() Reason { return p.held }

// Version returns the record's version; the zero one where that is no identifier.
func (p *Packed) Version() Version { return p.version }

// instant is a time in nanoseconds since 1970; the least is the zero time.
type instant int64

const noInstant instant = 0

// instantOf keeps 0 for the zero time, which records have often, and leaves out
// the one nanosecond whose place it takes.
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
