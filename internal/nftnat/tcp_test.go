package nftnat

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/netlab"
)

// A rawTCP is a connection whose segments a test makes itself, between addresses that no host
// has: no kernel answers them.
type rawTCP struct {
	wireTest
	atInside       *netlab.Capture
	inside, remote netip.AddrPort
	outside        netip.AddrPort // of the subscriber, once something left
}

func newRawTCP(t *testing.T) *rawTCP {
	t.Helper()
	c := &rawTCP{wireTest: newWireTest(t), inside: netip.MustParseAddrPort("100.64.0.50:5005"), remote: netip.MustParseAddrPort("203.0.113.99:80")}
	var err error
	if c.atInside, err = c.CGN.Capture(netlab.InsideInterface); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.atInside.Close() })
	apply(t, c, blockOf(c.inside.Addr(), nat.GateOpen, 0))
	run(t, c.Lab, "ip", "neigh", "add", c.inside.Addr().String(), "lladdr", "02:00:00:00:00:01", "dev", netlab.InsideInterface)
	run(t, c.Lab, "ip", "neigh", "add", c.remote.Addr().String(), "lladdr", "02:00:00:00:00:02", "dev", netlab.OutsideInterface)
	return c
}

// A segment has numbers as its sender counts them.
type segment struct {
	flags    netlab.TCPFlags
	seq, ack uint32
	payload  string
}

// out sends from the subscriber, and wants the segment outside.
func (c *rawTCP) out(t *testing.T, s segment) {
	t.Helper()
	c.capture.Clear()
	c.sends(t, c.Subscriber, c.inside, c.remote, s)
	left, err := c.capture.Await(testContext(t), func(p netlab.Packet) bool { return p.Outgoing && p.Destination == c.remote && p.Flags == s.flags })
	if err != nil {
		t.Fatalf("%+v did not leave: %v", s, err)
	}
	if c.outside.IsValid() && left.Source != c.outside || !inBlock(blockOf(c.inside.Addr(), nat.GateOpen, 0), left.Source) {
		t.Fatalf("%+v left from %v, before from %v", s, left.Source, c.outside)
	}
	c.outside = left.Source
}

// in sends from the remote host, and wants the segment inside.
func (c *rawTCP) in(t *testing.T, s segment) {
	t.Helper()
	c.atInside.Clear()
	c.sends(t, c.Internet, c.remote, c.outside, s)
	_, err := c.atInside.Await(testContext(t), func(p netlab.Packet) bool {
		return p.Outgoing && p.Source == c.remote && p.Destination == c.inside && p.Flags == s.flags
	})
	if err != nil {
		t.Fatalf("%+v did not come in: %v", s, err)
	}
}

func (c *rawTCP) sends(t *testing.T, host *netlab.Namespace, from, to netip.AddrPort, s segment) {
	t.Helper()
	err := host.Send(netlab.Packet{
		Protocol: netlab.TCP, Flags: s.flags, Seq: s.seq, Ack: s.ack, Source: from, Destination: to, Payload: []byte(s.payload),
	})
	if err != nil {
		t.Fatal(err)
	}
}

// wantState waits for the state and the idle timeout of the connection.
func (c *rawTCP) wantState(t *testing.T, state string) {
	t.Helper()
	want := testTimeouts.TCPTransitory
	if state == "ESTABLISHED" {
		want = testTimeouts.TCPEstablished
	}
	c.wantExpiryOf(t, c.inside.Addr(), "tcp sport=5005 "+state, want)
}

// TestHandshakes_NAT15_NAT18_NAT19 opens a connection from inside and closes it each way, and
// reads the timeout of every state.
func TestHandshakes_NAT15_NAT18_NAT19(t *testing.T) {
	open := func(t *testing.T) *rawTCP {
		t.Helper()
		c := newRawTCP(t)
		c.out(t, segment{netlab.SYN, 1000, 0, ""})
		c.wantState(t, "SYN_SENT")
		c.in(t, segment{netlab.SYN | netlab.ACK, 5000, 1001, ""})
		c.wantState(t, "SYN_RECV")
		c.out(t, segment{netlab.ACK, 1001, 5001, ""})
		c.wantState(t, "ESTABLISHED")
		return c
	}
	t.Run("closed by FIN", func(t *testing.T) {
		c := open(t)
		c.out(t, segment{netlab.FIN | netlab.ACK, 1001, 5001, ""})
		c.wantState(t, "FIN_WAIT")
		c.in(t, segment{netlab.ACK, 5001, 1002, ""})
		c.wantState(t, "CLOSE_WAIT")
		c.in(t, segment{netlab.FIN | netlab.ACK, 5001, 1002, ""})
		c.wantState(t, "LAST_ACK")
		c.out(t, segment{netlab.ACK, 1002, 5002, ""})
		c.wantState(t, "TIME_WAIT")
	})
	t.Run("reset from inside", func(t *testing.T) {
		c := open(t)
		c.out(t, segment{netlab.RST, 1001, 0, ""})
		c.wantState(t, "CLOSE")
	})
	t.Run("reset from outside", func(t *testing.T) {
		c := open(t)
		c.in(t, segment{netlab.RST, 5001, 0, ""})
		c.wantState(t, "CLOSE")
	})
}

// TestSimultaneousOpen_NAT15 has both sides send a SYN before either has one (RFC 9293 section
// 3.5).
func TestSimultaneousOpen_NAT15(t *testing.T) {
	c := newRawTCP(t)
	c.out(t, segment{netlab.SYN, 1000, 0, ""})
	c.in(t, segment{netlab.SYN, 5000, 0, ""})
	c.wantState(t, "SYN_SENT2")
	c.out(t, segment{netlab.SYN | netlab.ACK, 1000, 5001, ""})
	c.in(t, segment{netlab.SYN | netlab.ACK, 5000, 1001, ""})
	c.out(t, segment{netlab.ACK, 1001, 5001, ""})
	c.in(t, segment{netlab.ACK, 5001, 1001, ""})
	c.wantState(t, "ESTABLISHED")
	c.out(t, segment{netlab.PSH | netlab.ACK, 1001, 5001, "data"})
	c.in(t, segment{netlab.PSH | netlab.ACK, 5001, 1005, "data"})
}

// TestRetransmits_NAT15_NAT17 repeats segments that were acknowledged by another way, or were
// lost behind the CGN, and ones that nobody acknowledges: all pass, and the idle timeout stays
// that of an established connection.
func TestRetransmits_NAT15_NAT17(t *testing.T) {
	c := newRawTCP(t)
	c.out(t, segment{netlab.SYN, 1000, 0, ""})
	c.out(t, segment{netlab.SYN, 1000, 0, ""})
	c.in(t, segment{netlab.SYN | netlab.ACK, 5000, 1001, ""})
	c.in(t, segment{netlab.SYN | netlab.ACK, 5000, 1001, ""})
	c.out(t, segment{netlab.ACK, 1001, 5001, ""})
	data := strings.Repeat("d", 100)
	for range 6 { // more than nf_conntrack_tcp_max_retrans
		c.out(t, segment{netlab.PSH | netlab.ACK, 1001, 5001, data})
		c.wantState(t, "ESTABLISHED")
	}
	c.in(t, segment{netlab.PSH | netlab.ACK, 5001, 1001, data}) // acknowledges none of it
	c.in(t, segment{netlab.ACK, 5101, 1101, ""})                // acknowledges all
	c.out(t, segment{netlab.ACK, 1101, 5101, ""})
	c.out(t, segment{netlab.PSH | netlab.ACK, 1001, 5001, data}) // an older one, late
	c.in(t, segment{netlab.PSH | netlab.ACK, 5001, 1101, data})  // the same, from the other side
	c.wantState(t, "ESTABLISHED")
}
