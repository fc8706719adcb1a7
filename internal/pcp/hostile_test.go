package pcp

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"

	"github.com/sessiond/sessiond/internal/pcp/wire"
)

// TestHostile sends what no client should: each gets its answer or silence, is counted, and leaves
// nothing; a sound request afterwards is answered.
func TestHostile(t *testing.T) {
	octets := func(r *wire.Request) []byte {
		if !r.Client.IsValid() {
			r.Client = alice
		}
		return wire.AppendRequest(nil, r)
	}
	changed := func(r *wire.Request, at int, to byte) []byte {
		b := octets(r)
		b[at] = to
		return b
	}
	const silence = wire.Result(255)
	for _, tt := range []struct {
		name     string
		datagram []byte
		from     netip.Addr
		want     wire.Result
		opcode   string
		outcome  string
	}{
		{"PCP-01 from a stranger", octets(mapping(5000, 600)), portal, silence, "map", OutcomeStranger},
		{"PCP-01 a NAT-PMP request from a stranger", []byte{0, 0}, portal, silence, "natpmp_address", OutcomeStranger},
		{"PCP-02 no octet", nil, alice, silence, "other", OutcomeMalformed},
		{"PCP-02 one octet", []byte{2}, alice, silence, "other", OutcomeMalformed},
		{"PCP-02 an answer", changed(mapping(5000, 600), 1, 0x81), alice, silence, "map", OutcomeMalformed},
		{"PCP-02 half a header", octets(mapping(5000, 600))[:12], alice, silence, "map", OutcomeMalformed},
		{"PCP-03 version 1", changed(mapping(5000, 600), 0, 1), alice, wire.UnsuppVersion, "map", ""},
		{"PCP-03 version 255, two octets", []byte{255, 1}, alice, wire.UnsuppVersion, "map", ""},
		{"PCP-04 1,104 octets", append(octets(mapping(5000, 600)), make([]byte, 1104-60)...), alice, wire.MalformedRequest, "map", ""},
		{"PCP-04 61 octets", append(octets(mapping(5000, 600)), 0), alice, wire.MalformedRequest, "map", ""},
		{"PCP-04 a header of MAP", octets(mapping(5000, 600))[:24], alice, wire.MalformedRequest, "map", ""},
		{"PCP-05 a spoofed client", octets(&wire.Request{Opcode: wire.Map, Lifetime: 600, Client: bob, Target: mapping(5000, 0).Target}), alice, wire.AddressMismatch, "map", ""},
		{"PCP-05 IPv4 not mapped", slices.Concat(octets(mapping(5000, 600))[:18], []byte{0, 0}, octets(mapping(5000, 600))[20:]), alice, wire.AddressMismatch, "map", ""},
		{"PCP-06 opcode 9", changed(mapping(5000, 600), 1, 9), alice, wire.UnsuppOpcode, "other", ""},
		{"PCP-08 option 77", append(octets(mapping(5000, 600)), 77, 0, 0, 0), alice, wire.UnsuppOption, "map", ""},
		{"PCP-08 an option beyond the end", append(octets(mapping(5000, 600)), 200, 0, 4, 0), alice, wire.MalformedOption, "map", ""},
		{"PCP-18 all ports", octets(mapping(0, 600)), alice, wire.UnsuppProtocol, "map", ""},
		{"PCP-18 all protocols", octets(&wire.Request{Opcode: wire.Map, Lifetime: 600}), alice, wire.UnsuppProtocol, "map", ""},
		{"PCP-21 a deletion of nothing", octets(mapping(5000, 0)), alice, wire.Success, "map", ""},
		{"PCP-27 PEER to nobody", octets(&wire.Request{Opcode: wire.Peer, Lifetime: 600, Target: mapping(5000, 0).Target}), alice, wire.MalformedRequest, "peer", ""},
		{"PCP-28 for a third party", octets(mapping(5000, 600, wire.Option{Code: wire.ThirdParty, Inside: bob})), alice, wire.UnsuppOption, "map", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDesk(t)
			before := bytes.Clone(tt.datagram)
			answer := d.ask(tt.from, tt.datagram)
			outcome := tt.outcome
			switch {
			case tt.want == silence:
				if answer != nil {
					t.Fatalf("answered with %x", answer)
				}
			default:
				outcome = tt.want.String()
				checkAnswer(t, tt.datagram, answer, tt.want)
			}
			if !bytes.Equal(tt.datagram, before) {
				t.Error("the datagram was changed")
			}
			if d.counts.of(tt.opcode, outcome) != 1 || len(d.counts.requests) != 1 {
				t.Errorf("counted %v, want one %s %s", d.counts.requests, tt.opcode, outcome)
			}
			if n := len(d.twin.List(alice)) + len(d.twin.List(bob)); n != 0 {
				t.Errorf("%d mappings were made", n)
			}
			if tt.want != wire.Success && d.twin.changes != 0 {
				t.Error("mappings were asked to change")
			}
			d.want(d.do(alice, mapping(5000, 600)), wire.Success, 600)
		})
	}
}

// checkAnswer checks what RFC 6887 section 8.3 says of the octets of an answer.
func checkAnswer(t *testing.T, request, answer []byte, want wire.Result) {
	t.Helper()
	a, err := wire.ParseAnswer(answer)
	if err != nil || a.Result != want || a.Epoch != 3600 {
		t.Fatalf("answered with %x: %+v, %v, want %v", answer, a, err, want)
	}
	if len(answer) > 1100 || len(answer)%4 != 0 || answer[0] != 2 || answer[1] != request[1]|0x80 || answer[2] != 0 {
		t.Errorf("the answer is %x", answer)
	}
	_, err = wire.ParseRequest(request, alice)
	from := 12 // of a request that was parsed the reserved octets are zero (section 7.2)
	if err == nil {
		from = 24
	}
	if n := min(len(request), len(answer)); want != wire.Success && n > from && !bytes.Equal(answer[from:n], request[from:n]) {
		t.Errorf("the answer %x does not repeat %x (PCP-07)", answer, request)
	}
	if err == nil && !bytes.Equal(answer[12:24], make([]byte, 12)) {
		t.Errorf("reserved octets of %x are set (PCP-06)", answer)
	}
}

// TestProcessedOptions_PCP09: an answer has the options that were processed, in order, and none else.
func TestProcessedOptions_PCP08_PCP09(t *testing.T) {
	d := newDesk(t)
	prefer := wire.Option{Code: wire.PreferFailure}
	filter := wire.Option{Code: wire.FilterOption, Filter: wire.Filter{Prefix: netip.MustParsePrefix("203.0.113.0/24")}}
	request := suggesting(mapping(5000, 600, filter, prefer), "0.0.0.0:60001")
	request.Client = alice
	b := append(wire.AppendRequest(nil, request), 200, 0, 0, 1, 9, 0, 0, 0)
	a, err := wire.ParseAnswer(d.ask(alice, b))
	if err != nil || a.Result != wire.Success || !slices.Equal(a.Options, []wire.Option{filter, prefer}) {
		t.Errorf("%+v, %v", a, err)
	}
}
