package wire

import (
	"bytes"
	"net/netip"
	"reflect"
	"testing"
)

var (
	client  = netip.MustParseAddr("100.64.0.10")
	outside = netip.MustParseAddrPort("198.51.100.1:60000")
	remote  = netip.MustParseAddrPort("203.0.113.10:443")
	nonce   = Nonce{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
)

func sampleRequest(o Opcode, options ...Option) *Request {
	r := &Request{Opcode: o, Lifetime: 3600, Client: client, Options: options}
	if o != Announce {
		r.Target = Target{Nonce: nonce, Protocol: 17, InsidePort: 5000, Outside: outside}
	}
	if o == Peer {
		r.Remote = remote
	}
	return r
}

// FuzzRequest: what is read of a datagram is written as a request that is read alike; and an answer
// to any datagram, whatever it says, is one that a client reads.
func FuzzRequest(f *testing.F) {
	for _, r := range []*Request{
		sampleRequest(Announce), sampleRequest(Map), sampleRequest(Peer),
		sampleRequest(Map, Option{Code: PreferFailure}, Option{Code: FilterOption, Filter: Filter{netip.MustParsePrefix("203.0.113.0/24"), 443}}),
		sampleRequest(Map, Option{Code: ThirdParty, Inside: netip.MustParseAddr("100.64.0.11")}, Option{Code: FilterOption}),
	} {
		f.Add(AppendRequest(nil, r))
	}
	f.Add(append(AppendRequest(nil, sampleRequest(Map)), 130, 0, 0, 5, 1, 2, 3, 4, 5, 0, 0, 0))
	f.Add([]byte{2, 0})
	f.Fuzz(func(t *testing.T, datagram []byte) {
		before := bytes.Clone(datagram)
		source := client
		if len(datagram) >= headerLength {
			source = netip.AddrFrom16([16]byte(datagram[8:24])).Unmap()
		}
		r, err := ParseRequest(datagram, source)
		if !bytes.Equal(datagram, before) {
			t.Fatal("reading changed the datagram")
		}
		if err != nil {
			if result, ok := err.(Result); ok {
				checkError(t, datagram, result)
			}
			return
		}
		again, err := ParseRequest(AppendRequest(nil, &r), r.Client)
		if err != nil || !reflect.DeepEqual(again, r) {
			t.Fatalf("read %+v, %v; want %+v", again, err, r)
		}
		a := Answer{Version: Version, Opcode: r.Opcode, Lifetime: r.Lifetime, Epoch: 7, Target: r.Target, Options: r.Options}
		octets := AppendAnswer(nil, &a)
		if len(octets) > MaxLength {
			return // the server's options are those of the request, and never longer
		}
		if r.Opcode == Map && r.Outside.Port() == 0 {
			return // PREFER_FAILURE asks for a port
		}
		got, err := ParseAnswer(octets)
		if err != nil || !reflect.DeepEqual(got, a) {
			t.Fatalf("answer read %+v, %v; want %+v", got, err, a)
		}
	})
}

// checkError checks the answer to a request that failed (RFC 6887 section 8.3).
func checkError(t *testing.T, datagram []byte, result Result) {
	t.Helper()
	octets := AppendError(nil, datagram, false, result, 1800, 7)
	a, err := ParseAnswer(octets)
	if err != nil || a.Result != result || a.Lifetime != 1800 || a.Epoch != 7 || a.Opcode != OpcodeOf(datagram) {
		t.Fatalf("error %v of %x is read as %+v, %v", result, datagram, a, err)
	}
	if n := min(len(datagram), MaxLength); n > 12 && !bytes.Equal(octets[12:n], datagram[12:n]) {
		t.Fatalf("error of %x does not repeat it: %x", datagram, octets)
	}
}

// FuzzNATPMP does the same for NAT-PMP.
func FuzzNATPMP(f *testing.F) {
	for _, r := range []*NATPMPRequest{{}, {Protocol: 17, InsidePort: 5000, OutsidePort: 6000, Lifetime: 7200}, {Protocol: 6, InsidePort: 22}} {
		f.Add(AppendNATPMPRequest(nil, r))
	}
	f.Add([]byte{0, 3})
	f.Fuzz(func(t *testing.T, datagram []byte) {
		r, err := ParseNATPMP(datagram)
		if err == error(UnsuppOpcode) {
			a, err := ParseNATPMPAnswer(AppendNATPMPUnsupported(nil, datagram, 7))
			if err != nil || a.Result != NATPMPUnsuppOpcode || a.Epoch != 7 {
				t.Fatalf("unsupported is read as %+v, %v", a, err)
			}
		}
		if err != nil {
			return
		}
		if again, err := ParseNATPMP(AppendNATPMPRequest(nil, &r)); err != nil || again != r {
			t.Fatalf("read %+v, %v; want %+v", again, err, r)
		}
		a := NATPMPAnswer{NATPMPRequest: r, Epoch: 7}
		if r.Protocol == 0 {
			a.Outside = outside.Addr()
		}
		if got, err := ParseNATPMPAnswer(AppendNATPMPAnswer(nil, &a)); err != nil || got != a {
			t.Fatalf("answer read %+v, %v; want %+v", got, err, a)
		}
	})
}

// FuzzAnswer: no datagram makes a reader of answers fail.
func FuzzAnswer(f *testing.F) {
	f.Add(AppendAnswer(nil, &Answer{Opcode: Map, Target: sampleRequest(Map).Target}))
	f.Add(AppendNATPMPAnswer(nil, &NATPMPAnswer{Outside: outside.Addr()}))
	f.Fuzz(func(t *testing.T, datagram []byte) {
		if a, err := ParseAnswer(datagram); err == nil && a.Version != Version {
			t.Fatalf("took %x for an answer", datagram)
		}
		if a, err := ParseNATPMPAnswer(datagram); err == nil && a.Protocol != 0 && a.Protocol != 6 && a.Protocol != 17 {
			t.Fatalf("took %x for an answer", datagram)
		}
	})
}
