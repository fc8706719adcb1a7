package netlab

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/mdlayher/socket"
	"golang.org/x/sys/unix"
)

// captureBuffer is the receive buffer of a capture, enough for the bursts of a
// test. If it was too small, Dropped reports so.
const captureBuffer = 16 << 20

// A Capture keeps every IPv4 packet that crosses an interface, both ways.
type Capture struct {
	conn *socket.Conn
	done chan struct{}

	mu      sync.Mutex
	packets []Packet
	changed chan struct{} // closed and replaced with every packet
	dropped uint32
}

// Capture starts to capture on an interface of the namespace. It needs
// CAP_NET_RAW. The caller must Close it.
func (n *Namespace) Capture(iface string) (*Capture, error) {
	var conn *socket.Conn
	err := n.Do(func() (err error) {
		conn, err = openCapture(iface)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("capture on %s: %w", iface, err)
	}
	c := &Capture{conn: conn, done: make(chan struct{}), changed: make(chan struct{})}
	go c.run()
	return c, nil
}

func openCapture(iface string) (*socket.Conn, error) {
	ifi, err := net.InterfaceByName(iface)
	if err != nil {
		return nil, err
	}
	// The socket is bound only below: with protocol 0 it receives nothing before
	// that, and so nothing of other interfaces.
	conn, err := socket.Socket(unix.AF_PACKET, unix.SOCK_DGRAM, 0, "capture", nil)
	if err != nil {
		return nil, err
	}
	_ = conn.SetReadBuffer(captureBuffer)
	all := &unix.SockaddrLinklayer{Protocol: hostToNetwork(unix.ETH_P_ALL), Ifindex: ifi.Index}
	if err := conn.Bind(all); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

func hostToNetwork(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

func (c *Capture) run() {
	defer close(c.done)
	buf := make([]byte, 1<<16)
	for {
		size, from, err := c.conn.Recvfrom(context.Background(), buf, 0)
		if err != nil {
			return
		}
		link, ok := from.(*unix.SockaddrLinklayer)
		if !ok {
			continue
		}
		if p, ok := ParsePacket(slices.Clone(buf[:size])); ok {
			p.At = time.Now()
			p.Outgoing = link.Pkttype == unix.PACKET_OUTGOING
			c.add(p)
		}
	}
}

func (c *Capture) add(p Packet) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.packets = append(c.packets, p)
	close(c.changed)
	c.changed = make(chan struct{})
}

// Packets returns the packets captured since the start or the last Clear.
func (c *Capture) Packets() []Packet {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.packets)
}

// Matching returns the captured packets that match.
func (c *Capture) Matching(match func(Packet) bool) []Packet {
	return slices.DeleteFunc(c.Packets(), func(p Packet) bool { return !match(p) })
}

// Clear drops the packets captured so far.
func (c *Capture) Clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.packets = nil
}

// Await returns the first packet that matches, and waits for it if necessary.
func (c *Capture) Await(ctx context.Context, match func(Packet) bool) (Packet, error) {
	for next := 0; ; {
		packets, changed := c.since(next)
		if i := slices.IndexFunc(packets, match); i >= 0 {
			return packets[i], nil
		}
		next += len(packets)
		select {
		case <-changed:
		case <-ctx.Done():
			return Packet{}, fmt.Errorf("no such packet captured: %w", ctx.Err())
		}
	}
}

func (c *Capture) since(next int) ([]Packet, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.packets[min(next, len(c.packets)):]), c.changed
}

// Settle sends a datagram from a namespace to an address across the captured
// interface, and waits until it is captured. Then all earlier packets are
// captured too, so that their absence proves something.
func (c *Capture) Settle(ctx context.Context, from *Namespace, to netip.Addr) error {
	const discard = 9 // RFC 863
	conn, err := from.Dial(ctx, "udp4", netip.AddrPort{}, netip.AddrPortFrom(to, discard))
	if err != nil {
		return fmt.Errorf("settle capture: %w", err)
	}
	defer conn.Close()
	mark := rand.Text()
	if _, err := conn.Write([]byte(mark)); err != nil {
		return fmt.Errorf("settle capture: %w", err)
	}
	_, err = c.Await(ctx, func(p Packet) bool { return p.Protocol == UDP && string(p.Payload) == mark })
	return err
}

// Dropped returns the number of packets that the kernel could not deliver since
// the start. If it is not 0, a missing packet proves nothing.
func (c *Capture) Dropped() (uint32, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	raw, err := c.conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var stats *unix.TpacketStats
	var statsErr error
	err = raw.Control(func(fd uintptr) {
		stats, statsErr = unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS)
	})
	if err == nil {
		err = statsErr
	}
	if err != nil {
		return 0, fmt.Errorf("capture statistics: %w", err)
	}
	c.dropped += stats.Drops // reading resets the kernel's count
	return c.dropped, nil
}

// Close ends the capture; the captured packets remain available.
func (c *Capture) Close() error {
	err := c.conn.Close()
	<-c.done
	return err
}
