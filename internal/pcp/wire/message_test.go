package wire

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// with returns a request's octets with one of them changed.
func with(r *Request, at int, octet byte) []byte {
	b := AppendRequest(nil, r)
	b[at] = octet
	return b
}

func option(code byte, data ...byte) []byte {
	b := append([]byte{code, 0, byte(len(data) >> 8), byte(len(data))}, data...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func lifetime(r *Request, seconds uint32) *Request {
	r.Lifetime = seconds
	return r
}

func target(o Opcode, change func(*Request)) []byte {
	r := sampleRequest(o)
	change(r)
	return AppendRequest(nil, r)
}

func filter(bits byte) []byte {
	data := make([]byte, filterLength)
	data[1] = bits
	address := remote.Addr().As16()
	copy(data[4:], address[:])
	return option(byte(FilterOption), data...)
}

func TestRefused(t *testing.T) {
	announce, port, peer := AppendRequest(nil, sampleRequest(Announce)), AppendRequest(nil, sampleRequest(Map)), AppendRequest(nil, sampleRequest(Peer))
	for _, tt := range []struct {
		name     string
		datagram []byte
		want     error
	}{
		{"PCP-02 nothing", nil, ErrSilence},
		{"PCP-02 one octet", []byte{2}, ErrSilence},
		{"PCP-02 an answer", with(sampleRequest(Map), 1, 0x81), ErrSilence},
		{"PCP-02 a cut header", announce[:20], ErrSilence},
		{"PCP-03 version 1", with(sampleRequest(Map), 0, 1), UnsuppVersion},
		{"PCP-03 version 3, two octets", []byte{3, 0}, UnsuppVersion},
		{"PCP-03 NAT-PMP", []byte{0, 0}, UnsuppVersion},
		{"PCP-04 too long", append(slices.Clone(port), make([]byte, MaxLength)...), MalformedRequest},
		{"PCP-04 not a multiple of four", port[:len(port)-1], MalformedRequest},
		{"PCP-04 MAP without its body", port[:headerLength], MalformedRequest},
		{"PCP-04 MAP cut short", port[:len(port)-4], MalformedRequest},
		{"PCP-04 PEER cut short", peer[:len(peer)-4], MalformedRequest},
		{"PCP-05 another client's address", with(sampleRequest(Map), 23, 99), AddressMismatch},
		{"PCP-06 an unknown opcode", with(sampleRequest(Map), 1, 3), UnsuppOpcode},
		{"PCP-06 the last opcode", with(sampleRequest(Map), 1, 127), UnsuppOpcode},
		{"PCP-08 an unknown option that must be understood", append(slices.Clone(port), option(127)...), UnsuppOption},
		{"PCP-08 option 0", append(slices.Clone(port), option(0)...), UnsuppOption},
		{"PCP-08 an option of MAP in ANNOUNCE", append(slices.Clone(announce), option(byte(PreferFailure))...), UnsuppOption},
		{"PCP-08 a length beyond the datagram", append(slices.Clone(port), 200, 0, 0, 8, 0, 0, 0, 0), MalformedOption},
		{"PCP-08 the largest length", append(slices.Clone(port), 200, 0, 255, 255), MalformedOption},
		{"PCP-08 PREFER_FAILURE twice", append(slices.Clone(port), slices.Concat(option(2), option(2))...), MalformedOption},
		{"PCP-17 PREFER_FAILURE with data", append(slices.Clone(port), option(2, 1)...), MalformedOption},
		{"PCP-17 PREFER_FAILURE without a port", append(target(Map, func(r *Request) { r.Outside = netip.AddrPortFrom(outside.Addr(), 0) }), option(2)...), MalformedOption},
		{"PCP-17 PREFER_FAILURE in a deletion", append(AppendRequest(nil, lifetime(sampleRequest(Map), 0)), option(2)...), MalformedOption},
		{"PCP-18 a port of all protocols", target(Map, func(r *Request) { r.Protocol = 0 }), MalformedRequest},
		{"PCP-18 all ports", target(Map, func(r *Request) { r.InsidePort = 0 }), UnsuppProtocol},
		{"PCP-18 all protocols", target(Map, func(r *Request) { r.InsidePort, r.Protocol = 0, 0 }), UnsuppProtocol},
		{"PCP-18 SCTP", target(Map, func(r *Request) { r.Protocol = 132 }), UnsuppProtocol},
		{"PCP-18 a deletion of SCTP", AppendRequest(nil, lifetime(&Request{Opcode: Map, Client: client, Target: Target{Protocol: 132, InsidePort: 1}}, 0)), UnsuppProtocol},
		{"PCP-27 PEER without a remote address", target(Peer, func(r *Request) { r.Remote = netip.AddrPortFrom(netip.Addr{}, 443) }), MalformedRequest},
		{"PCP-27 PEER without a remote port", target(Peer, func(r *Request) { r.Remote = netip.AddrPortFrom(remote.Addr(), 0) }), MalformedRequest},
		{"PCP-27 PEER of an IPv6 remote", target(Peer, func(r *Request) { r.Remote = netip.MustParseAddrPort("[2001:db8::1]:443") }), MalformedRequest},
		{"PCP-27 PEER of no inside port", target(Peer, func(r *Request) { r.InsidePort = 0 }), MalformedRequest},
		{"PCP-28 THIRD_PARTY of a wrong length", append(slices.Clone(port), option(1, 1, 2, 3, 4)...), MalformedOption},
		{"PCP-28 THIRD_PARTY of its own address", AppendRequest(nil, sampleRequest(Map, Option{Code: ThirdParty, Inside: client})), MalformedRequest},
		{"PCP-29 FILTER of 95 bits", append(slices.Clone(port), filter(95)...), MalformedOption},
		{"PCP-29 FILTER of 129 bits", append(slices.Clone(port), filter(129)...), MalformedOption},
		{"PCP-29 FILTER in a deletion", append(AppendRequest(nil, lifetime(sampleRequest(Map), 0)), filter(128)...), MalformedOption},
		{"PCP-29 FILTER of IPv6", append(slices.Clone(port), option(3, append([]byte{0, 128, 0, 0, 0x20, 1}, make([]byte, 14)...)...)...), MalformedOption},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if r, err := ParseRequest(tt.datagram, client); !errors.Is(err, tt.want) {
				t.Errorf("%+v, %v, want %v", r, err, tt.want)
			}
		})
	}
}

// TestOptionsToIgnore_PCP06_PCP08: reserved bits and options that may be ignored change nothing.
func TestOptionsToIgnore_PCP06_PCP08(t *testing.T) {
	want := sampleRequest(Map, Option{Code: FilterOption, Filter: Filter{netip.MustParsePrefix("203.0.113.10/32"), 0}}, Option{Code: PreferFailure})
	b := AppendRequest(nil, sampleRequest(Map))
	b = append(b, option(130, 1, 2, 3, 4, 5)...)
	b = append(append(b, filter(128)...), option(2)...)
	b = append(b, option(255)...)
	for _, reserved := range []int{2, 3, headerLength + 13, headerLength + 15, headerLength + mapLength + 1} {
		b[reserved] = 0xff
	}
	r, err := ParseRequest(b, client)
	if err != nil || !slices.Equal(r.Options, want.Options) || r.Target != want.Target {
		t.Errorf("%+v, %v, want %+v", r, err, want)
	}
}

// TestErrorLifetimes_PCP07: how long a client leaves off (RFC 6887 section 7.4).
func TestErrorLifetimes_PCP07(t *testing.T) {
	short := []Result{NetworkFailure, NoResources, UserExQuota, CannotProvideExternal}
	for _, r := range Results() {
		want := 30 * time.Minute
		switch {
		case r == Success:
			want = 0
		case slices.Contains(short, r):
			want = 30 * time.Second
		}
		if got := r.Lifetime(); got != want {
			t.Errorf("%v lasts %v, want %v", r, got, want)
		}
	}
}
