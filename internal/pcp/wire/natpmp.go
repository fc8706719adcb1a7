package wire

import (
	"encoding/binary"
	"net/netip"
)

// Opcodes of NAT-PMP (RFC 6886 section 3).
const (
	natpmpAddress = 0
	natpmpUDP     = 1
	natpmpTCP     = 2
)

// NATPMPResult is a result code of NAT-PMP (RFC 6886 section 3.5).
type NATPMPResult uint16

// The result codes of NAT-PMP.
const (
	NATPMPSuccess        NATPMPResult = 0
	NATPMPNotAuthorized  NATPMPResult = 2
	NATPMPNetworkFailure NATPMPResult = 3
	NATPMPNoResources    NATPMPResult = 4
	NATPMPUnsuppOpcode   NATPMPResult = 5
)

// NATPMPResultOf returns the code of NAT-PMP that says the same.
func NATPMPResultOf(r Result) NATPMPResult {
	switch r {
	case Success:
		return NATPMPSuccess
	case NetworkFailure:
		return NATPMPNetworkFailure
	case NoResources, UserExQuota:
		return NATPMPNoResources
	case UnsuppOpcode, MalformedRequest:
		return NATPMPUnsuppOpcode
	}
	return NATPMPNotAuthorized
}

// Octets of the messages of NAT-PMP.
const (
	natpmpShortRequest  = 2
	natpmpMapRequest    = 12
	natpmpErrorAnswer   = 8
	natpmpAddressAnswer = 12
	natpmpMapAnswer     = 16
)

// NATPMPRequest is a request of NAT-PMP: of the outside address, or of a mapping.
type NATPMPRequest struct {
	Protocol    uint8 // of a mapping: 6 TCP, 17 UDP; 0 asks for the outside address
	InsidePort  uint16
	OutsidePort uint16 // suggested
	Lifetime    uint32 // seconds; 0 deletes
}

// ParseNATPMP reads a request of NAT-PMP (RFC 6886 sections 3.2 and 3.3). The error is ErrSilence
// or the Result of the answer.
func ParseNATPMP(datagram []byte) (r NATPMPRequest, err error) {
	if len(datagram) < natpmpShortRequest || datagram[1]&responseBit != 0 {
		return r, ErrSilence
	}
	switch datagram[1] {
	case natpmpAddress:
		return r, nil
	case natpmpUDP:
		r.Protocol = 17
	case natpmpTCP:
		r.Protocol = 6
	default:
		return r, UnsuppOpcode
	}
	if len(datagram) < natpmpMapRequest {
		return r, ErrSilence
	}
	r.InsidePort = binary.BigEndian.Uint16(datagram[4:])
	r.OutsidePort = binary.BigEndian.Uint16(datagram[6:])
	r.Lifetime = binary.BigEndian.Uint32(datagram[8:])
	return r, nil
}

func (r *NATPMPRequest) opcode() byte {
	switch r.Protocol {
	case 17:
		return natpmpUDP
	case 6:
		return natpmpTCP
	}
	return natpmpAddress
}

// AppendNATPMPRequest appends a request of NAT-PMP.
func AppendNATPMPRequest(b []byte, r *NATPMPRequest) []byte {
	b = append(b, 0, r.opcode())
	if r.Protocol == 0 {
		return b
	}
	b = binary.BigEndian.AppendUint16(append(b, 0, 0), r.InsidePort)
	b = binary.BigEndian.AppendUint16(b, r.OutsidePort)
	return binary.BigEndian.AppendUint32(b, r.Lifetime)
}

// NATPMPAnswer is an answer of NAT-PMP.
type NATPMPAnswer struct {
	NATPMPRequest // as asked, and the outside port and lifetime that were granted
	Result        NATPMPResult
	Epoch         uint32     // seconds
	Outside       netip.Addr // IPv4, of an answer about it
}

// AppendNATPMPAnswer appends an answer of NAT-PMP.
func AppendNATPMPAnswer(b []byte, a *NATPMPAnswer) []byte {
	b = append(b, 0, a.opcode()|responseBit)
	b = binary.BigEndian.AppendUint16(b, uint16(a.Result))
	b = binary.BigEndian.AppendUint32(b, a.Epoch)
	if a.Protocol == 0 {
		var octets [4]byte
		if a.Outside.Is4() {
			octets = a.Outside.As4()
		}
		return append(b, octets[:]...)
	}
	b = binary.BigEndian.AppendUint16(b, a.InsidePort)
	b = binary.BigEndian.AppendUint16(b, a.OutsidePort)
	return binary.BigEndian.AppendUint32(b, a.Lifetime)
}

// AppendNATPMPUnsupported appends the answer to a request of an unknown opcode.
func AppendNATPMPUnsupported(b, request []byte, epoch uint32) []byte {
	b = append(b, 0, request[1]|responseBit)
	b = binary.BigEndian.AppendUint16(b, uint16(NATPMPUnsuppOpcode))
	return binary.BigEndian.AppendUint32(b, epoch)
}

// ParseNATPMPAnswer reads an answer of NAT-PMP, as a client does.
func ParseNATPMPAnswer(datagram []byte) (a NATPMPAnswer, err error) {
	if len(datagram) < natpmpErrorAnswer || datagram[0] != 0 || datagram[1]&responseBit == 0 {
		return a, MalformedRequest
	}
	a.Result = NATPMPResult(binary.BigEndian.Uint16(datagram[2:]))
	a.Epoch = binary.BigEndian.Uint32(datagram[4:])
	switch opcode := datagram[1] &^ responseBit; {
	case opcode == natpmpAddress && len(datagram) >= natpmpAddressAnswer:
		a.Outside = netip.AddrFrom4([4]byte(datagram[8:]))
	case (opcode == natpmpUDP || opcode == natpmpTCP) && len(datagram) >= natpmpMapAnswer:
		a.Protocol = map[byte]uint8{natpmpUDP: 17, natpmpTCP: 6}[opcode]
		a.InsidePort = binary.BigEndian.Uint16(datagram[8:])
		a.OutsidePort = binary.BigEndian.Uint16(datagram[10:])
		a.Lifetime = binary.BigEndian.Uint32(datagram[12:])
	case a.Result == NATPMPSuccess:
		return a, MalformedRequest
	}
	return a, nil
}
