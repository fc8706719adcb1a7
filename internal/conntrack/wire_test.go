package conntrack_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/sessiond/sessiond/internal/conntrack"
	"github.com/sessiond/sessiond/internal/conntrack/conntracktest"
)

func entries() map[string]conntrack.Entry {
	a, b := inside(1), inside(2)
	tcp := conntracktest.Outbound(at(a, 1000), at(outside, 2000), at(remote, 443))
	tcp.Orig.Protocol, tcp.Reply.Protocol, tcp.TCPState = 6, 6, 3
	tcp.Packets, tcp.Bytes = 7, 1<<40
	icmp := conntracktest.Outbound(at(a, 77), at(outside, 77), at(remote, 77))
	icmp.Orig.Protocol, icmp.Reply.Protocol = 1, 1
	icmp.Orig.DstPort, icmp.Reply.DstPort = 8<<8, 0
	icmp.Labels = conntrack.Label(77)
	zoned := conntracktest.Inbound(at(a, 1), at(outside, 2), at(remote, 3))
	zoned.Zone, zoned.ID = 513, 0xdeadbeef
	return map[string]conntrack.Entry{
		"tcp": tcp, "icmp": icmp, "zoned": zoned,
		"hairpin": conntracktest.Hairpin(at(a, 1), at(outside, 2), at(b, 3), at(outside, 4)),
	}
}

func TestParse(t *testing.T) {
	for name, want := range entries() {
		t.Run(name, func(t *testing.T) {
			payload, err := conntracktest.Payload(want)
			if err != nil {
				t.Fatal(err)
			}
			got, ok, err := conntrack.ParsePayload(payload)
			if !ok || err != nil || got != want {
				t.Errorf("got %+v, %v, %v\nwant %+v", got, ok, err, want)
			}
		})
	}
}

func TestParseRefusesAndPassesOver(t *testing.T) {
	good, err := conntracktest.Payload(entries()["tcp"])
	if err != nil {
		t.Fatal(err)
	}
	ipv6 := bytes.Clone(good)
	ipv6[0] = 10
	if _, ok, err := conntrack.ParsePayload(ipv6); ok || err != nil {
		t.Errorf("IPv6: %v, %v; want passed over", ok, err)
	}
	for name, b := range map[string][]byte{
		"empty": nil, "short": good[:3], "no tuples": good[:4], "cut": good[:len(good)-3],
		"zero attribute":   append(bytes.Clone(good), 0, 0, 0, 0),
		"long attribute":   append(bytes.Clone(good), 255, 255, 3, 0),
		"short identifier": append(bytes.Clone(good), 6, 0, 12, 0, 1, 2, 0, 0),
	} {
		if _, _, err := conntrack.ParsePayload(b); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestParseAllocatesNothing(t *testing.T) {
	payload, err := conntracktest.Payload(entries()["tcp"])
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { _, _, _ = conntrack.ParsePayload(payload) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzParse checks that no bytes panic, and that parsed entries come back the same through
// an encoder that shares nothing with the parser.
func FuzzParse(f *testing.F) {
	for _, e := range entries() {
		payload, err := conntracktest.Payload(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(payload)
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		got, ok, err := conntrack.ParsePayload(payload)
		if !ok || err != nil {
			return
		}
		if got.Orig.Protocol != 6 {
			got.TCPState = 0 // only TCP has one to encode
		}
		encoded, err := conntracktest.Payload(got)
		if err != nil {
			t.Fatal(err)
		}
		again, ok, err := conntrack.ParsePayload(encoded)
		if !ok || err != nil || again != got {
			t.Errorf("got %+v, %v, %v\nwant %+v", again, ok, err, got)
		}
	})
}

// FuzzFrames checks that no datagram panics, whichever lengths it claims.
func FuzzFrames(f *testing.F) {
	payload, err := conntracktest.Payload(entries()["tcp"])
	if err != nil {
		f.Fatal(err)
	}
	message := make([]byte, 16, 16+len(payload))
	binary.NativeEndian.PutUint32(message, uint32(16+len(payload)))
	binary.NativeEndian.PutUint16(message[4:], 1<<8)
	binary.NativeEndian.PutUint32(message[8:], 1)
	message = append(message, payload...)
	f.Add(message)
	f.Add(append(bytes.Clone(message), message...))
	f.Add(message[:40])
	f.Fuzz(func(_ *testing.T, datagram []byte) { conntrack.ParseDatagram(datagram) })
}

func TestLeftErrorNamesWhatIsLeft(t *testing.T) {
	err := &conntrack.RemainingError{Left: map[netip.Addr]int{inside(2): 3, inside(1): 2}}
	want := "5 conntrack entries of 2 addresses are left, 2 of them of 100.64.0.1"
	if err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
}
