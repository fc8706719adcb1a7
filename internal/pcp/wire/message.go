package wire

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// Ports of both protocols, and the bounds of messages in octets.
const (
	ServerPort = 5351 // of requests
	ClientPort = 5350 // of announcements, which no request asked for
	MaxLength  = 1100 // of a message of PCP (RFC 6887 section 7)

	headerLength = 24
	mapLength    = 36
	peerLength   = mapLength + 20
)

// Version is that of PCP; NAT-PMP has version 0.
const Version = 2

// responseBit tells answers from requests, in the octet of the opcode.
const responseBit = 0x80

// Opcode says what a request of PCP asks for.
type Opcode uint8

// The opcodes of RFC 6887.
const (
	Announce Opcode = iota
	Map
	Peer
)

// bodyLength returns the octets between the header and the options.
func (o Opcode) bodyLength() int {
	switch o {
	case Map:
		return mapLength
	case Peer:
		return peerLength
	}
	return 0
}

// Nonce ties a mapping to the client that asked for it (RFC 6887 section 11.2).
type Nonce [12]byte

// Request is a request of PCP.
type Request struct {
	Opcode   Opcode
	Lifetime uint32     // seconds
	Client   netip.Addr // IPv4, or IPv6
	Target              // of MAP and PEER
	Options  []Option   // in order, those to be ignored left out
}

// Target is the body of MAP and PEER: in a request the endpoint that is asked for, in an answer
// the one that is assigned.
type Target struct {
	Nonce      Nonce
	Protocol   uint8 // IANA number, 0 for all
	InsidePort uint16
	Outside    netip.AddrPort // suggested or assigned; the zero address for none
	Remote     netip.AddrPort // of PEER
}

// ErrSilence is the error of a datagram that gets no answer: it is no request, or too short to
// tell.
var ErrSilence = errors.New("pcp: no request")

// IsNATPMP reports whether a datagram is of NAT-PMP, by its version.
func IsNATPMP(datagram []byte) bool { return len(datagram) >= 2 && datagram[0] == 0 }

// OpcodeOf returns the opcode of a datagram of two octets or more, without the bit of answers.
func OpcodeOf(datagram []byte) Opcode { return Opcode(datagram[1] &^ responseBit) }

// ParseRequest reads a request of PCP (RFC 6887 sections 7 and 8) that came from an address. The
// error is ErrSilence or the Result of the answer.
func ParseRequest(datagram []byte, source netip.Addr) (Request, error) {
	switch {
	case len(datagram) < 2, datagram[1]&responseBit != 0:
		return Request{}, ErrSilence
	case datagram[0] != Version:
		return Request{}, UnsuppVersion
	case len(datagram) < headerLength:
		return Request{}, ErrSilence
	case len(datagram) > MaxLength, len(datagram)%4 != 0:
		return Request{}, MalformedRequest
	}
	r := Request{
		Opcode: Opcode(datagram[1]), Lifetime: binary.BigEndian.Uint32(datagram[4:]),
		Client: netip.AddrFrom16([16]byte(datagram[8:24])).Unmap(),
	}
	switch {
	case r.Client != source:
		return r, AddressMismatch
	case r.Opcode > Peer:
		return r, UnsuppOpcode
	}
	body, options, ok := cut(datagram[headerLength:], r.Opcode.bodyLength())
	if !ok {
		return r, MalformedRequest
	}
	if r.Opcode != Announce {
		r.Target = parseTarget(body)
		if err := r.checkTarget(); err != nil {
			return r, err
		}
	}
	var err error
	r.Options, err = parseOptions(options, &r)
	return r, err
}

// cut returns the first n octets, and the rest.
func cut(b []byte, n int) (first, rest []byte, ok bool) {
	if len(b) < n {
		return nil, nil, false
	}
	return b[:n], b[n:], true
}

func parseTarget(b []byte) Target {
	t := Target{
		Nonce: Nonce(b), Protocol: b[12], InsidePort: binary.BigEndian.Uint16(b[16:]),
		Outside: netip.AddrPortFrom(parseAddr(b[20:]), binary.BigEndian.Uint16(b[18:])),
	}
	if len(b) == peerLength {
		t.Remote = netip.AddrPortFrom(parseAddr(b[40:]), binary.BigEndian.Uint16(b[36:]))
	}
	return t
}

// parseAddr reads an address; all zero, of either family, it is the zero Addr.
func parseAddr(b []byte) netip.Addr {
	a := netip.AddrFrom16([16]byte(b)).Unmap()
	if a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}

func appendAddr(b []byte, a netip.Addr) []byte {
	if !a.IsValid() {
		return append(b, make([]byte, 16)...)
	}
	octets := a.As16()
	return append(b, octets[:]...)
}

// checkTarget checks what RFC 6887 sections 11.1 and 12.1 ask of the body of a request.
func (r *Request) checkTarget() error {
	deletes := r.Opcode == Map && r.Lifetime == 0
	switch {
	case r.Protocol == 0 && r.InsidePort != 0:
		return MalformedRequest
	case r.Opcode == Peer && (r.InsidePort == 0 || !r.Remote.Addr().Is4() || r.Remote.Port() == 0):
		return MalformedRequest
	case deletes && r.Protocol == 0, deletes && r.InsidePort == 0 && mappable(r.Protocol):
		return nil // all mappings, or all of a protocol (section 15.1)
	case r.InsidePort == 0, !mappable(r.Protocol):
		return UnsuppProtocol
	}
	return nil
}

// mappable reports whether a protocol has mappings: TCP and UDP.
func mappable(protocol uint8) bool { return protocol == 6 || protocol == 17 }

// AppendRequest appends a request.
func AppendRequest(b []byte, r *Request) []byte {
	b = append(b, Version, byte(r.Opcode), 0, 0)
	b = binary.BigEndian.AppendUint32(b, r.Lifetime)
	b = appendAddr(b, r.Client)
	b = appendTarget(b, r.Opcode, &r.Target)
	return appendOptions(b, r.Options)
}

func appendTarget(b []byte, o Opcode, t *Target) []byte {
	if o == Announce {
		return b
	}
	b = append(append(b, t.Nonce[:]...), t.Protocol, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, t.InsidePort)
	b = binary.BigEndian.AppendUint16(b, t.Outside.Port())
	b = appendAddr(b, t.Outside.Addr())
	if o == Peer {
		b = binary.BigEndian.AppendUint16(b, t.Remote.Port())
		b = appendAddr(append(b, 0, 0), t.Remote.Addr())
	}
	return b
}

// Answer is an answer of PCP, or a message that no request asked for.
type Answer struct {
	Version  uint8
	Opcode   Opcode
	Result   Result
	Lifetime uint32 // seconds
	Epoch    uint32 // seconds (RFC 6887 section 8.5)
	Target          // of MAP and PEER
	Options  []Option
}

// AppendAnswer appends an answer of Success (RFC 6887 section 8.3).
func AppendAnswer(b []byte, a *Answer) []byte {
	b = append(b, Version, byte(a.Opcode)|responseBit, 0, byte(a.Result))
	b = binary.BigEndian.AppendUint32(b, a.Lifetime)
	b = binary.BigEndian.AppendUint32(b, a.Epoch)
	b = append(b, make([]byte, 12)...)
	b = appendTarget(b, a.Opcode, &a.Target)
	return appendOptions(b, a.Options)
}

// AppendError appends the answer to a request of two octets or more that failed: its octets, up
// to MaxLength, with the fields that a server sets (RFC 6887 section 8.3). The reserved octets
// are those of a request that could not be parsed, else zero (section 7.2).
func AppendError(b, request []byte, parsed bool, result Result, lifetime, epoch uint32) []byte {
	start := len(b)
	b = append(b, request[:min(len(request), MaxLength)]...)
	for len(b)-start < headerLength || (len(b)-start)%4 != 0 {
		b = append(b, 0)
	}
	answer := b[start:]
	answer[0] = Version
	answer[1] |= responseBit
	answer[2], answer[3] = 0, byte(result)
	binary.BigEndian.PutUint32(answer[4:], lifetime)
	binary.BigEndian.PutUint32(answer[8:], epoch)
	if parsed {
		clear(answer[12:headerLength])
	}
	return b
}

// ParseAnswer reads an answer, as a client does. Of an error only the fields before the target are
// read.
func ParseAnswer(datagram []byte) (Answer, error) {
	if len(datagram) < headerLength || len(datagram) > MaxLength || len(datagram)%4 != 0 || datagram[0] != Version || datagram[1]&responseBit == 0 {
		return Answer{}, MalformedRequest
	}
	a := Answer{
		Version: datagram[0], Opcode: OpcodeOf(datagram), Result: Result(datagram[3]),
		Lifetime: binary.BigEndian.Uint32(datagram[4:]), Epoch: binary.BigEndian.Uint32(datagram[8:]),
	}
	if a.Result != Success || a.Opcode > Peer {
		return a, nil
	}
	body, options, ok := cut(datagram[headerLength:], a.Opcode.bodyLength())
	if !ok {
		return a, MalformedRequest
	}
	if a.Opcode != Announce {
		a.Target = parseTarget(body)
	}
	var err error
	a.Options, err = parseOptions(options, &Request{Opcode: a.Opcode, Lifetime: 1, Target: a.Target})
	return a, err
}
