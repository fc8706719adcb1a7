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
	began    *time.Time // as long as its Start was not sent, the zero Time
}

func (s session) String() string { return s.user + "/" + s.id }

// A bng is a NAS as it reports.
type bng struct {
	name    string        // NAS-Identifier
	source  string        // address from which it is heard
	ahead   time.Duration // its clock, less ours
	stamps  bool          // it sends Event-Timestamp
	delays  bool          // it sends Acct-Delay-Time
	address netip.Addr    // NAS-IP-Address; zero for none
}

// ahead1970 and ahead2036 are the clocks of boxes without a battery.
func ahead1970() time.Duration { return time.Until(time.Unix(600, 0)).Truncate(time.Second) }
func ahead2036() time.Duration {
	return time.Until(time.Date(2036, 2, 7, 0, 0, 0, 0, time.UTC)).Truncate(time.Second)
}

// A packet is one accounting request, as it is first sent and sent again.
type packet struct {
	bng     bng
	request acctclient.Request
	old     time.Duration // how long before it is first sent the event was
	first   time.Time     // when the event was; zero before it is sent
	began   *time.Time    // when its session was; nil for a restart
	lasted  time.Duration // Acct-Session-Time; negative for what is true
	counted bool          // Acct-Delay-Time goes on when it is sent again
	again   *packet       // sent before, which this one is again by another way; nil for none
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

// restarts counts those of all NASes: the packets of two are never the same.
var restarts atomic.Int64

// on is the Accounting-On; a bng that has just booted may have another clock.
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

// via is the NAS as it is heard from another address.
func (b bng) via(source string) bng {
	b.source = source
	return b
}

// clock is the NAS with its clock so much ahead of ours.
func (b bng) clock(ahead time.Duration) bng {
	b.ahead = ahead
	return b
}

// lasting gives an Interim or Stop another Acct-Session-Time than the true one.
func (p *packet) lasting(d time.Duration) *packet {
	p.lasted = d
	return p
}

// late makes the packet one that a lossy network or a relay kept for so long.
func (p *packet) late(by time.Duration) *packet {
	p.old = by
	return p
}

// within marks the packet as of a service within a session: with the vendor's mark,
// or by Acct-Multi-Session-Id alone.
func (p *packet) within(s session, mark ...*radius.AVP) *packet {
	p.request.MultiSessionID = s.id
	p.request.Extra = mark
	return p
}

// multi gives the packet an Acct-Multi-Session-Id.
func (p *packet) multi(id string) *packet {
	p.request.MultiSessionID = id
	return p
}

// through is the packet again, as it comes by another way.
func (p *packet) through(other bng) *packet {
	return &packet{bng: other, again: p, counted: p.counted}
}

// counting is the packet with its Acct-Delay-Time counted up at each sending.
func (p *packet) counting() *packet {
	p.counted = true
	return p
}

// now is the request as it is sent now. Its Event-Timestamp is that of the event.
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

// count has the session begin with its Start, and tells how long it lasts.
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

// The marks that vendors put on the accounting of a service.
func ciscoMark(s session) *radius.AVP { return vendorMark(9, 1, "parent-session-id="+s.id) }
func juniperMark() *radius.AVP        { return vendorMark(4874, 83, "svc-boost") }
func nokiaMark() *radius.AVP          { return vendorMark(6527, 151, "rate-limit") }
