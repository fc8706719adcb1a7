package acctclient

import (
	"fmt"
	"net/netip"
	"time"

	"layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2866"
	"layeh.com/radius/rfc2869"
	"layeh.com/radius/rfc3162"
)

// A Request is the content of an accounting request. Zero values are left out of the packet
// unless their comment says otherwise.
type Request struct {
	Status           rfc2866.AcctStatusType // always sent
	SessionID        string                 // Acct-Session-Id
	MultiSessionID   string                 // Acct-Multi-Session-Id
	UserName         string
	CallingStationID string
	NASIdentifier    string
	NASAddress       netip.Addr    // NAS-IP-Address or NAS-IPv6-Address
	FramedAddress    netip.Addr    // IPv4
	SessionTime      time.Duration // whole seconds; sent with Interim-Update and Stop even when 0
	DelayTime        time.Duration // whole seconds
	SendDelay        bool          // send Acct-Delay-Time even when it is 0
	EventTime        time.Time     // Event-Timestamp
	InputOctets      uint64        // sent as octets and gigawords
	OutputOctets     uint64
	TerminateCause   rfc2866.AcctTerminateCause
	Extra            radius.Attributes // appended unchanged, in order
}

// Packet builds the request, without identifier and authenticator. An error names the
// attribute whose value is too long.
func (r *Request) Packet() (*radius.Packet, error) {
	b := builder{packet: &radius.Packet{Code: radius.CodeAccountingRequest}}
	b.number(rfc2866.AcctStatusType_Type, uint32(r.Status))
	b.text(rfc2866.AcctSessionID_Type, r.SessionID)
	b.text(rfc2866.AcctMultiSessionID_Type, r.MultiSessionID)
	b.text(rfc2865.UserName_Type, r.UserName)
	b.text(rfc2865.CallingStationID_Type, r.CallingStationID)
	b.text(rfc2865.NASIdentifier_Type, r.NASIdentifier)
	b.addresses(r)
	b.times(r)
	b.octets(rfc2866.AcctInputOctets_Type, rfc2869.AcctInputGigawords_Type, r.InputOctets)
	b.octets(rfc2866.AcctOutputOctets_Type, rfc2869.AcctOutputGigawords_Type, r.OutputOctets)
	if r.TerminateCause != 0 {
		b.number(rfc2866.AcctTerminateCause_Type, uint32(r.TerminateCause))
	}
	b.packet.Attributes = append(b.packet.Attributes, r.Extra...)
	return b.packet, b.err
}

// A builder adds attributes and keeps the first error.
type builder struct {
	packet *radius.Packet
	err    error
}

func (b *builder) add(kind radius.Type, value radius.Attribute, err error) {
	if err != nil && b.err == nil {
		b.err = fmt.Errorf("acctclient: attribute %d: %w", kind, err)
	}
	b.packet.Add(kind, value)
}

func (b *builder) number(kind radius.Type, n uint32) {
	b.add(kind, radius.NewInteger(n), nil)
}

func (b *builder) text(kind radius.Type, s string) {
	if s == "" {
		return
	}
	value, err := radius.NewString(s)
	b.add(kind, value, err)
}

func (b *builder) addresses(r *Request) {
	switch nas := r.NASAddress.Unmap(); {
	case nas.Is4():
		b.add(rfc2865.NASIPAddress_Type, nas.AsSlice(), nil)
	case nas.Is6():
		b.add(rfc3162.NASIPv6Address_Type, nas.AsSlice(), nil)
	}
	if r.FramedAddress.IsValid() {
		value, err := radius.NewIPAddr(r.FramedAddress.AsSlice())
		b.add(rfc2865.FramedIPAddress_Type, value, err)
	}
}

func (b *builder) times(r *Request) {
	inSession := r.Status == rfc2866.AcctStatusType_Value_InterimUpdate || r.Status == rfc2866.AcctStatusType_Value_Stop
	if inSession || r.SessionTime > 0 {
		b.number(rfc2866.AcctSessionTime_Type, uint32(r.SessionTime/time.Second))
	}
	if r.DelayTime > 0 || r.SendDelay {
		b.number(rfc2866.AcctDelayTime_Type, uint32(r.DelayTime/time.Second))
	}
	if !r.EventTime.IsZero() {
		value, err := radius.NewDate(r.EventTime)
		b.add(rfc2869.EventTimestamp_Type, value, err)
	}
}

func (b *builder) octets(low, gigawords radius.Type, n uint64) {
	if n == 0 {
		return
	}
	b.number(low, uint32(n))
	if high := uint32(n >> 32); high > 0 {
		b.number(gigawords, high)
	}
}
