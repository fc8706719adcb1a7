package subscriber

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"time"
	"unique"
)

// Packed is a Record in a third of its room, for those who keep many: what many
// records share is kept once, and the rest of their texts in one piece. It never
// changes. The zero Packed is the zero Record.
type Packed struct {
	origin  unique.Handle[origin]
	text    string // User-Name, Calling-Station-Id and Acct-Session-Id
	name    uint16 // where in text the User-Name ends
	calling uint16 // and the Calling-Station-Id
	flags   packedFlags
	held    Reason
	inside  [4]byte
	started instant
	updated instant
	expires instant
	input   uint64
	output  uint64
	millis  uint64 // of the version
	seq     uint64
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
	framedIPv6Addresses []netip.Addr
	framedIPv6Prefixes  []netip.Prefix
	delegatedPrefixes   []netip.Prefix
	multiSessionID      string
	links               []string
}

type packedFlags uint8

const (
	packedInside4 packedFlags = 1 << iota
	packedUnconfirmed
	packedVersion // millis and seq tell the version to the letter
	packedLong    // the texts are in rare
)

// Pack returns the record in little room.
func (r *Record) Pack() Packed {
	p := Packed{
		started: instantOf(r.StartedAt), updated: instantOf(r.UpdatedAt), expires: instantOf(r.ExpiresAt),
		input: r.InputOctets, output: r.OutputOctets, held: r.RemovalHeld,
	}
	if o := (origin{r.Group, r.Client, r.NAS, r.NASAddress}); o != (origin{}) {
		p.origin = unique.Make(o)
	}
	if r.Inside.Is4() {
		p.inside, p.flags = r.Inside.As4(), p.flags|packedInside4
	}
	if r.Unconfirmed {
		p.flags |= packedUnconfirmed
	}
	p.millis, p.seq = splitVersion(r.Version)
	if r.Version == formatVersion(p.millis, p.seq) {
		p.flags |= packedVersion
	}
	if size := len(r.UserName) + len(r.CallingStationID); size > math.MaxUint16 {
		p.flags |= packedLong
	} else {
		p.name, p.calling = uint16(len(r.UserName)), uint16(size)
		p.text = r.UserName + r.CallingStationID + r.AcctSessionID
	}
	p.rare = r.rare(p.flags)
	return p
}

// rare returns what Packed has no other room for, nil for nothing.
func (r *Record) rare(flags packedFlags) *rareFields {
	f := rareFields{
		leg:                 r.Leg,
		framedIPv6Addresses: r.FramedIPv6Addresses,
		framedIPv6Prefixes:  r.FramedIPv6Prefixes,
		delegatedPrefixes:   r.DelegatedPrefixes,
		multiSessionID:      r.MultiSessionID,
		links:               r.Links,
	}
	if flags&packedInside4 == 0 {
		f.inside = r.Inside
	}
	if flags&packedVersion == 0 {
		f.version = r.Version
	}
	if flags&packedLong != 0 {
		f.name, f.calling, f.id = r.UserName, r.CallingStationID, r.AcctSessionID
	}
	if f.isZero() {
		return nil
	}
	return &f
}

func (f *rareFields) isZero() bool {
	return !f.inside.IsValid() && !f.leg.IsValid() && f.version == "" && f.name == "" && f.calling == "" && f.id == "" &&
		f.framedIPv6Addresses == nil && f.framedIPv6Prefixes == nil && f.delegatedPrefixes == nil &&
		f.multiSessionID == "" && f.links == nil
}

// Record returns the record. Times are in UTC; those outside the years 1678 to
// 2261 come back as the nearest that lies within.
func (p *Packed) Record() Record {
	r := Record{
		StartedAt: p.started.time(), UpdatedAt: p.updated.time(), ExpiresAt: p.expires.time(),
		InputOctets: p.input, OutputOctets: p.output,
		Unconfirmed: p.flags&packedUnconfirmed != 0, RemovalHeld: p.held,
		UserName: p.text[:p.name], CallingStationID: p.text[p.name:p.calling],
	}
	r.AcctSessionID = p.text[p.calling:]
	if p.origin != (unique.Handle[origin]{}) {
		o := p.origin.Value()
		r.Group, r.Client, r.NAS, r.NASAddress = o.group, o.client, o.nas, o.address
	}
	r.Inside = p.Inside()
	if p.rare != nil {
		p.rare.unpack(&r, p.flags)
	}
	if p.flags&packedVersion != 0 {
		r.Version = formatVersion(p.millis, p.seq)
	}
	return r
}

func (f *rareFields) unpack(r *Record, flags packedFlags) {
	r.Leg, r.Version, r.MultiSessionID = f.leg, f.version, f.multiSessionID
	r.FramedIPv6Addresses = slices.Clip(f.framedIPv6Addresses)
	r.FramedIPv6Prefixes = slices.Clip(f.framedIPv6Prefixes)
	r.DelegatedPrefixes = slices.Clip(f.delegatedPrefixes)
	r.Links = slices.Clip(f.links)
	if flags&packedLong != 0 {
		r.UserName, r.CallingStationID, r.AcctSessionID = f.name, f.calling, f.id
	}
}

// Refreshed returns the record after a Partial change, given what that tells;
// nothing has to be unpacked for it.
func (p Packed) Refreshed(c *Record) Packed {
	p.updated, p.expires = instantOf(c.UpdatedAt), instantOf(c.ExpiresAt)
	p.input, p.output = c.InputOctets, c.OutputOctets
	p.millis, p.seq = splitVersion(c.Version)
	p.flags |= packedVersion // what a feed makes
	return p
}

// Unversioned returns the record without its Version.
func (p Packed) Unversioned() Packed {
	p.millis, p.seq, p.flags = 0, 0, p.flags&^packedVersion
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

// UserName returns the record's User-Name.
func (p *Packed) UserName() string {
	if p.flags&packedLong != 0 {
		return p.rare.name
	}
	return p.text[:p.name]
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

// CompareVersion is CompareVersions of the record's version and another.
func (p *Packed) CompareVersion(version string) int {
	millis, seq := splitVersion(version)
	return cmp.Or(cmp.Compare(p.millis, millis), cmp.Compare(p.seq, seq))
}

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

// formatVersion is the reverse of splitVersion.
func formatVersion(millis, seq uint64) string {
	var room [41]byte
	text := append(strconv.AppendUint(room[:0], millis, 10), '-')
	return string(strconv.AppendUint(text, seq, 10))
}
