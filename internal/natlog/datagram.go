package natlog

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/clock"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/natlog/wire"
)

const (
	connectWithin = 5 * time.Second // bounds a connect, with the lookup of a name
	writeWithin   = 5 * time.Second // bounds a write

	unknownPath = 512  // octets of a message where the path MTU is not known (RFC 7011 section 10.3.3)
	mostPath    = 1400 // and where it is larger than any Ethernet

	// datagramPause is the pause for an event: 50,000 a second, so that a collector's socket is
	// not flooded with what the spool has collected.
	datagramPause = 20 * time.Microsecond

	// nameLife is how long an address stays in use that was looked up by a name.
	nameLife = 5 * time.Minute
)

// datagrams sends messages over UDP.
type datagrams struct {
	target *target
	o      *Options

	conn     *net.UDPConn
	dialed   time.Time
	size     int // octets of a message at most
	packer   wire.Packer
	taught   time.Time // when templates were sent last
	untaught int       // messages since then
	text     wire.Syslog
	buffer   []byte
}

func newDatagrams(t *target, o *Options) *datagrams {
	return &datagrams{target: t, o: o, text: wire.Syslog{PEN: o.PEN, Node: o.Node, ProcessID: os.Getpid()}}
}

func (d *datagrams) settle() time.Duration     { return 0 }
func (d *datagrams) sent() uint64              { return 0 }
func (d *datagrams) received() (uint64, error) { return 0, nil }

func (d *datagrams) close() error {
	if d.conn == nil {
		return nil
	}
	err := d.conn.Close()
	d.conn = nil
	return err
}

func (d *datagrams) connect(ctx context.Context) error {
	if _, err := netip.ParseAddr(d.target.host); err != nil && d.conn != nil && time.Since(d.dialed) > nameLife {
		if err := d.close(); err != nil {
			return err
		}
	}
	if d.conn != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, connectWithin)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "udp", d.target.address)
	if err != nil {
		return err
	}
	d.conn, d.dialed, d.taught = conn.(*net.UDPConn), time.Now(), time.Time{}
	d.size = pathSize(d.conn)
	d.packer = newPacker(d.o, d.dialed)
	return nil
}

// newPacker returns the packer of a transport session, nil for syslog.
func newPacker(o *Options, began time.Time) wire.Packer {
	switch o.Protocol {
	case IPFIX:
		return &wire.IPFIX{Domain: o.Domain, FixedNames: o.FixedNames}
	case NetFlow9:
		return &wire.NetFlow9{Source: o.Domain, Began: began}
	}
	return nil
}

// pathSize returns how many octets a message to the peer may have, so that the packet needs no
// fragments: as many as the kernel knows of the path.
func pathSize(conn *net.UDPConn) int {
	level, name, headers := unix.IPPROTO_IP, unix.IP_MTU, 20+8
	if conn.RemoteAddr().(*net.UDPAddr).AddrPort().Addr().Unmap().Is6() {
		level, name, headers = unix.IPPROTO_IPV6, unix.IPV6_MTU, 40+8
	}
	size := unknownPath
	if raw, err := conn.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			if mtu, err := unix.GetsockoptInt(int(fd), level, name); err == nil {
				size = mtu - headers
			}
		})
	}
	return max(wire.LeastMessage, min(size, mostPath))
}

func (d *datagrams) carry(ctx context.Context, events []nat.Event) error {
	if err := d.connect(ctx); err != nil {
		return err
	}
	for len(events) > 0 {
		packed := 1
		if d.packer == nil {
			d.buffer = d.text.Append(d.buffer[:0], &events[0])
		} else {
			teach := d.untaught >= d.o.TemplateMessages || time.Since(d.taught) >= d.o.TemplateInterval
			d.buffer, packed = d.packer.Pack(d.buffer[:0], events, d.size, teach, time.Now())
			if d.untaught++; teach {
				d.taught, d.untaught = time.Now(), 1
			}
		}
		if err := d.write(ctx); err != nil {
			return err
		}
		events = events[packed:]
		if err := clock.Sleep(ctx, time.Duration(packed)*datagramPause); err != nil {
			return err
		}
	}
	return nil
}

// write sends the message in the buffer. The answer to an earlier one, that the port is closed,
// is an error of this one.
func (d *datagrams) write(ctx context.Context) error {
	if err := d.conn.SetWriteDeadline(deadline(ctx)); err != nil {
		return err
	}
	_, err := d.conn.Write(d.buffer)
	if errors.Is(err, syscall.EMSGSIZE) { // the path has become narrower, and the kernel knows
		d.size = pathSize(d.conn)
	}
	return err
}

// deadline returns when a write has to be over.
func deadline(ctx context.Context) time.Time {
	at := time.Now().Add(writeWithin)
	if end, ok := ctx.Deadline(); ok && end.Before(at) {
		return end
	}
	return at
}
