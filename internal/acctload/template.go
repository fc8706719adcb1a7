package acctload

import (
	"crypto/hmac"
	"crypto/md5"
	"encoding/binary"
	"hash"

	"layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2866"
	"layeh.com/radius/rfc2869"
)

// Offsets in a packet (RFC 2865 section 3).
const (
	authenticatorAt = 4
	headerLength    = 20
)

var zeroAuthenticator [md5.Size]byte

// An event is the content of one request.
type event struct {
	kind    Kind
	session uint64 // Acct-Session-Id, as 16 hexadecimal digits
	number  uint32 // of the subscriber
	inside  uint32 // Framed-IP-Address
	at      uint32 // Event-Timestamp, seconds since 1970
	lasted  uint32 // Acct-Session-Time in seconds
	octets  uint32 // both ways
}

// A template is a request without the values of its event. These have fixed
// lengths and are patched in place. The secret follows the packet in the same
// buffer, so that one MD5 over all gives the Request Authenticator.
type template struct {
	octets []byte // packet and secret
	length int    // of the packet
	secret []byte
	mac    hash.Hash // for the Message-Authenticator; nil for none

	session, user, station, inside, at, lasted, in, out, message int // offsets of values
}

const (
	userPrefix    = "sub"
	userDigits    = 10
	sessionDigits = 16
)

// newTemplate builds the request of a kind for a NAS. Its attributes depend on
// the kind only.
func newTemplate(o *Options, nas string, kind Kind) *template {
	t := &template{secret: o.Secret}
	t.octets = make([]byte, headerLength, radius.MaxPacketLength+len(o.Secret))
	t.octets[0] = byte(radius.CodeAccountingRequest)
	t.number(rfc2866.AcctStatusType_Type, uint32(kind))
	t.add(rfc2865.NASIdentifier_Type, []byte(nas))
	if o.NASAddress.IsValid() {
		t.add(rfc2865.NASIPAddress_Type, o.NASAddress.AsSlice())
	}
	t.session = t.add(rfc2866.AcctSessionID_Type, make([]byte, sessionDigits))
	t.at = t.number(rfc2869.EventTimestamp_Type, 0)
	if kind != KindAccountingOn {
		t.subscriber(kind)
	}
	for _, a := range o.Attributes {
		t.add(radius.Type(a.Type), a.Value)
	}
	if o.MessageAuthenticator {
		t.mac = hmac.New(md5.New, o.Secret)
		t.message = t.add(rfc2869.MessageAuthenticator_Type, zeroAuthenticator[:])
	}
	t.length = len(t.octets)
	binary.BigEndian.PutUint16(t.octets[2:], uint16(t.length))
	t.octets = append(t.octets, o.Secret...)
	return t
}

// subscriber adds the attributes of a subscriber.
func (t *template) subscriber(kind Kind) {
	t.user = t.add(rfc2865.UserName_Type, []byte(userPrefix+"0000000000")) + len(userPrefix)
	t.station = t.add(rfc2865.CallingStationID_Type, []byte("02-00-00-00-00-00"))
	t.inside = t.number(rfc2865.FramedIPAddress_Type, 0)
	if kind == KindStart {
		return
	}
	t.lasted = t.number(rfc2866.AcctSessionTime_Type, 0)
	t.in = t.number(rfc2866.AcctInputOctets_Type, 0)
	t.out = t.number(rfc2866.AcctOutputOctets_Type, 0)
	if kind == KindStop {
		t.number(rfc2866.AcctTerminateCause_Type, uint32(rfc2866.AcctTerminateCause_Value_UserRequest))
	}
}

// add appends an attribute and returns the offset of its value.
func (t *template) add(kind radius.Type, value []byte) int {
	t.octets = append(t.octets, byte(kind), byte(2+len(value)))
	t.octets = append(t.octets, value...)
	return len(t.octets) - len(value)
}

func (t *template) number(kind radius.Type, n uint32) int {
	return t.add(kind, binary.BigEndian.AppendUint32(nil, n))
}

// fill writes the signed request for an event into buf, and returns it with
// buf's capacity. Buf must have capacity for the template.
func (t *template) fill(buf []byte, identifier byte, ev *event) []byte {
	whole := append(buf[:0], t.octets...)
	whole[1] = identifier
	hex(whole[t.session:t.session+sessionDigits], ev.session)
	binary.BigEndian.PutUint32(whole[t.at:], ev.at)
	if ev.kind != KindAccountingOn {
		t.patchSubscriber(whole, ev)
	}
	if t.mac != nil {
		t.mac.Reset()
		t.mac.Write(whole[:t.length])
		t.mac.Sum(whole[:t.message])
	}
	sum := md5.Sum(whole)
	copy(whole[authenticatorAt:headerLength], sum[:])
	return whole[:t.length]
}

func (t *template) patchSubscriber(whole []byte, ev *event) {
	decimal(whole[t.user:t.user+userDigits], ev.number)
	station(whole[t.station:], ev.number)
	binary.BigEndian.PutUint32(whole[t.inside:], ev.inside)
	if ev.kind == KindStart {
		return
	}
	binary.BigEndian.PutUint32(whole[t.lasted:], ev.lasted)
	binary.BigEndian.PutUint32(whole[t.in:], ev.octets)
	binary.BigEndian.PutUint32(whole[t.out:], ev.octets)
}

const digits = "0123456789abcdef"

// hex writes n in lower-case hexadecimal over all of b.
func hex(b []byte, n uint64) {
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = digits[n&15]
		n >>= 4
	}
}

// decimal writes n in decimal over all of b.
func decimal(b []byte, n uint32) {
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = digits[n%10]
		n /= 10
	}
}

// station writes the last four octets of a MAC address, 02-00-xx-xx-xx-xx.
func station(b []byte, n uint32) {
	for octet := 5; octet >= 2; octet-- {
		hex(b[3*octet:3*octet+2], uint64(n&255))
		n >>= 8
	}
}
