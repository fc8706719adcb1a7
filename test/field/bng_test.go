package field

import (
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"layeh.com/radius"
	"layeh.com/radius/rfc2866"

	"github.com/sessiond/sessiond/internal/radiusacct/acctclient"
)

// A session is one accounting session as its NAS knows it.
type session struct {
	id, user string
	inside   netip.Addr
	began    *time.Time // begin; the zero Time until its Start is sent
}

func (s session) String() string { return s.user + "/" + s.id }

// A bng is a NAS with its way of reporting.
type bng struct {
	name    string        // NAS-Identifier
	source  string        // address from which it sends
	ahead   time.Duration // its clock minus ours
	stamps  bool          // it sends Event-Timestamp
	delays  bool          // it sends Acct-Delay-Time
	address netip.Addr    // NAS-IP-Address; zero for none
}

// ahead1970 and ahead2036 are the clocks of devices without a battery.
func ahead1970() time.Duration { return time.Until(time.Unix(600, 0)).Truncate(time.Second) }
func ahead2036() time.Duration {
	return time.Until(time.Date(2036, 2, 7, 0, 0, 0, 0, time.UTC)).Truncate(time.Second)
}

// A packet is one accounting request, for its first transmission and later ones.
type packet struct {
	bng     bng
	request acctclient.Request
	old     time.Duration // age of the event at the first transmission
	first   time.Time     // time of the event; zero before the first transmission
	began   *time.Time    // begin of its session; nil for a restart
	lasted  time.Duration // Acct-Session-Time; negative for the true one
	counted bool          // each transmission counts up Acct-Delay-Time
	again   *packet       // earlier packet that this one repeats over another way; nil for none
}

func (b bng) report(status rfc2866.AcctStatusType, s session) *packet {
	return &packet{bng: b, began: s.began, lasted: -1, request: acctclient.Request{
		Status: status, SessionID: s.id, UserName: s.user, FramedAddress: s.inside,
		NASIdentifier: b.name, NASAddress: b.address,
	}}
}

func (b bng) start(s session) *packet {
	return b.report(rfc2866.AcctStatusType_Value_Start, s)
}

func (b bng) interim(s session) *packet {
	return b.report(rfc2866.AcctStatusType_Value_InterimUpdate, s)
}

func (b bng) stop(s session) *packet {
	p := b.report(rfc2866.AcctStatusType_Value_Stop, s)
	p.request.TerminateCause = rfc2866.AcctTerminateCause_Value_UserRequest
	return p
}

// restarts counts the restarts of all NASes, so that no two packets are the same.
var restarts atomic.Int64

// on returns the Accounting-On; a bng that has just booted may have another clock.
func (b bng) on() *packet {
	return &packet{bng: b, request: acctclient.Request{
		Status: rfc2866.AcctStatusType_Value_AccountingOn, NASIdentifier: b.name, NASAddress: b.address,
		SessionID: fmt.Sprint("restart-", restarts.Add(1)),
	}}
}

func (b bng) off() *packet {
	p := b.on()
	p.request.Status = rfc2866.AcctStatusType_Value_AccountingOff
	return p
}

// via returns the NAS with another source address.
func (b bng) via(source string) bng {
	b.source = source
	return b
}

// clock returns the NAS with a clock ahead of ours by a duration.
func (b bng) clock(ahead time.Duration) bng {
	b.ahead = ahead
	return b
}

// lasting sets another Acct-Session-Time in an Interim or Stop than the true one.
func (p *packet) lasting(d time.Duration) *packet {
	p.lasted = d
	return p
}

// late delays the packet's first transmission, as a lossy network or a relay does.
func (p *packet) late(by time.Duration) *packet {
	p.old = by
	return p
}

// within marks the packet as of a service within a session: with the vendor's mark, or by
// Acct-Multi-Session-Id alone.
func (p *packet) within(s session, mark ...*radius.AVP) *packet {
	p.request.MultiSessionID = s.id
	p.request.Extra = mark
	return p
}

// multi sets the packet's Acct-Multi-Session-Id.
func (p *packet) multi(id string) *packet {
	p.request.MultiSessionID = id
	return p
}

// through returns a repetition of the packet over another NAS address.
func (p *packet) through(other bng) *packet {
	return &packet{bng: other, again: p, counted: p.counted}
}

// counting makes each transmission count up the packet's Acct-Delay-Time.
func (p *packet) counting() *packet {
	p.counted = true
	return p
}

// now returns the request as sent now. Its Event-Timestamp is that of the event.
func (p *packet) now() acctclient.Request {
	now := time.Now()
	if p.again != nil {
		p.request, p.first = p.again.request, p.again.first
	}
	if p.first.IsZero() {
		p.first = now.Add(-p.old)
		p.count(&p.request)
	}
	r := p.request
	if p.bng.stamps {
		r.EventTime = p.first.Add(p.bng.ahead)
	}
	if p.bng.delays {
		r.SendDelay, r.DelayTime = true, p.old
		if p.counted {
			r.DelayTime = now.Sub(p.first)
		}
	}
	return r
}

// count sets the session's begin at its Start, and else its Acct-Session-Time.
func (p *packet) count(r *acctclient.Request) {
	switch {
	case p.began == nil:
	case r.Status == rfc2866.AcctStatusType_Value_Start:
		*p.began = p.first
	case p.lasted >= 0:
		r.SessionTime = p.lasted
	default:
		r.SessionTime = p.first.Sub(*p.began)
	}
}

func vendorMark(vendor uint32, kind byte, value string) *radius.AVP {
	octets := []byte{byte(vendor >> 24), byte(vendor >> 16), byte(vendor >> 8), byte(vendor), kind, byte(2 + len(value))}
	return &radius.AVP{Type: 26, Attribute: append(octets, value...)}
}

// The vendors' marks of a service's accounting.
func ciscoMark(s session) *radius.AVP { return vendorMark(9, 1, "parent-session-id="+s.id) }
func juniperMark() *radius.AVP        { return vendorMark(4874, 83, "svc-boost") }
func nokiaMark() *radius.AVP          { return vendorMark(6527, 151, "rate-limit") }
