package netlab

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"
)

// Packets in hexadecimal: an IPv4 header from 100.64.0.10 to 203.0.113.10 with
// the protocol left open, and possible contents.
const (
	fromAlice = "4500 0054 0001 0000 40 %s 0000 6440000a cb00710a"
	udpHeader = "1388 0035 000c 0000"
	tcpHeader = "1388 0050 00000001 00000000 5012 ffff 0000 0000"
	echoOut   = "0800 0000 002a 0001"
	ttlOver   = "0b00 0000 0000 0000"
)

func packetBytes(t testing.TB, protocol string, parts ...string) []byte {
	t.Helper()
	text := strings.Replace(fromAlice, "%s", protocol, 1) + strings.Join(parts, "")
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParsePacket(t *testing.T) {
	t.Parallel()
	quoted := strings.Replace(fromAlice, "%s", "11", 1) + udpHeader
	fragment := packetBytes(t, "11", udpHeader)
	fragment[7] = 1
	for _, c := range []struct {
		name             string
		bytes            []byte
		srcPort, dstPort uint16
		flags            TCPFlags
		payload          string
		quotes           bool
	}{
		{name: "udp", bytes: packetBytes(t, "11", udpHeader, "68692121"), srcPort: 5000, dstPort: 53, payload: "hi!!"},
		{name: "udp cut short", bytes: packetBytes(t, "11", "1388")},
		{name: "later fragment", bytes: fragment},
		{name: "tcp", bytes: packetBytes(t, "06", tcpHeader, "6869"), srcPort: 5000, dstPort: 80, flags: SYN | ACK, payload: "hi"},
		{name: "tcp as quoted", bytes: packetBytes(t, "06", tcpHeader[:19]), srcPort: 5000, dstPort: 80},
		{name: "echo", bytes: packetBytes(t, "01", echoOut, "6869"), srcPort: 42, dstPort: 42, payload: "hi"},
		{name: "error", bytes: packetBytes(t, "01", ttlOver, quoted), quotes: true},
		{name: "error quoting an error", bytes: packetBytes(t, "01", ttlOver, strings.Replace(fromAlice, "%s", "01", 1), ttlOver), quotes: true},
		{name: "gre", bytes: packetBytes(t, "2f", "0000 0800")},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, ok := ParsePacket(c.bytes)
			if !ok || p.Source != netip.AddrPortFrom(alice, c.srcPort) || p.Destination.Port() != c.dstPort {
				t.Errorf("parsed %v -> %v, %v", p.Source, p.Destination, ok)
			}
			if p.Flags != c.flags || string(p.Payload) != c.payload || (p.Quoted != nil) != c.quotes {
				t.Errorf("parsed %+v", p)
			}
		})
	}
}

func TestParsePacketRefuses(t *testing.T) {
	t.Parallel()
	good := packetBytes(t, "11", udpHeader)
	longer := bytes.Clone(good[:20])
	longer[0] = 0x4f
	for name, b := range map[string][]byte{
		"empty":                nil,
		"short":                good[:19],
		"IPv6":                 append([]byte{0x60}, good[1:]...),
		"header too short":     append([]byte{0x44}, good[1:]...),
		"header beyond packet": longer,
	} {
		if p, ok := ParsePacket(b); ok {
			t.Errorf("%s: parsed as %+v", name, p)
		}
	}
}

func TestMentionsLooksIntoErrors(t *testing.T) {
	t.Parallel()
	p, _ := ParsePacket(packetBytes(t, "01", ttlOver, strings.Replace(fromAlice, "%s", "11", 1), udpHeader))
	p.Source, p.Destination = netip.AddrPortFrom(public, 0), netip.AddrPortFrom(public, 0)
	if !p.Mentions(alice) {
		t.Error("inside address in a quoted packet was not found")
	}
	if p.Mentions(bob) {
		t.Error("found an address that is not there")
	}
}

func FuzzParsePacket(f *testing.F) {
	f.Add(packetBytes(f, "11", udpHeader))
	f.Add(packetBytes(f, "06", tcpHeader))
	f.Add(packetBytes(f, "01", ttlOver, strings.Replace(fromAlice, "%s", "11", 1), udpHeader))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, ok := ParsePacket(b)
		if !ok {
			return
		}
		if !p.Mentions(p.Source.Addr()) || !p.Mentions(p.Destination.Addr()) {
			t.Errorf("packet does not mention its own addresses: %+v", p)
		}
		if !bytes.HasSuffix(b, p.Payload) {
			t.Errorf("payload %x is no tail of %x", p.Payload, b)
		}
		if p.Quoted != nil && p.Quoted.Quoted != nil {
			t.Errorf("error quoted in an error: %+v", p)
		}
	})
}
