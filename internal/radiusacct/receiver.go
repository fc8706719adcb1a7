package radiusacct

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
	"layeh.com/radius"

	"github.com/sessiond/sessiond/internal/udpbatch"
)

const (
	// receiveBatch is the number of datagrams read in one system call.
	receiveBatch = 64
	// datagramLength exceeds the longest packet. So a packet whose Length exceeds its
	// datagram differs from a datagram that was truncated here.
	datagramLength = radius.MaxPacketLength + 64
)

// A receiver reads the datagrams of one UDP socket.
type receiver struct {
	*handler
	socket       *socket
	reader       *udpbatch.Reader
	writer       *udpbatch.Writer // of replies that need no worker
	destinations destinations
	coalescer    coalescer
	incoming     incoming // the datagram being handled
	arrivals     arrivals
}

func newReceiver(s *Server, sock *socket) *receiver {
	r := &receiver{
		socket:       sock,
		reader:       sock.batches.NewReader(receiveBatch, datagramLength, controlLength),
		writer:       sock.batches.NewWriter(receiveBatch, s.replyFailed),
		destinations: destinations{ipv6: sock.LocalAddr().(*net.UDPAddr).IP.To4() == nil},
	}
	r.handler = newHandler(s, r)
	return r
}

// run reads until the socket fails, which interrupt causes by a deadline in the past.
func (r *receiver) run() error {
	for {
		datagrams, err := r.reader.Read()
		if err != nil {
			return fmt.Errorf("receive on %s: %w", r.socket.LocalAddr(), err)
		}
		now, read := r.server.now(), time.Now()
		for i := range datagrams {
			r.receive(&datagrams[i], now, r.arrivals.at(datagrams[i].Arrived, now, read))
		}
		r.handler.flush()
		r.writer.Flush()
		r.buffer = r.buffer[:0]
		time.Sleep(r.coalescer.pause(len(datagrams), now))
	}
}

// receive handles one datagram until it is refused, answered or queued.
func (r *receiver) receive(d *udpbatch.Datagram, now, arrival time.Time) {
	source := d.Peer.AddrPort()
	c, known := r.server.clients.Load().prefixes.Lookup(source.Addr())
	if !known {
		r.coalescer.note(nil, false, now)
		r.server.unknownClient(source, now)
		return
	}
	// With its queues nearly full, an Accounting-Request is dropped before it costs any
	// more. A Status-Server is still answered.
	limit := int64(len(r.server.queues) * r.server.options.QueueLength)
	if c.realm.waiting.Load() >= limit-limit/8 && len(d.Octets) > 0 && radius.Code(d.Octets[0]) == radius.CodeAccountingRequest {
		r.server.options.Observer.Request(c.peer.name, TypeUnread, ResultDropped, 0)
		return
	}
	local := r.destinations.of(d.Control)
	in := &r.incoming
	*in = incoming{
		octets:     d.Octets,
		client:     c,
		duplicates: c.peer.duplicates,
		source:     source,
		local:      local.addr,
		way:        replyPath{socket: r.socket.index, to: d.Peer, oob: local.oob},
		arrival:    arrival,
	}
	kind, err := r.serve(in)
	r.coalescer.note(c.peer, err == nil, now)
	if err != nil {
		r.server.refused(in, kind, err)
	}
}

// arrivals are the times of arrival of the datagrams of one socket, which never go back: the
// clock of a NAS is learned from them, and puts its events in order.
type arrivals struct{ last time.Time }

// at returns when a datagram arrived by its stamp, zero for none. It may have waited in the socket
// until it was read, such as while this process was paused: a counted delay is that at its arrival.
// now and read are the time of the read by the server's clock and the system's.
func (a *arrivals) at(stamp, now, read time.Time) time.Time {
	at := now
	if !stamp.IsZero() {
		at = now.Add(-max(0, read.Sub(stamp)))
	}
	if at.After(a.last) {
		a.last = at
	}
	return a.last
}

// add queues a reply until all datagrams of a read are handled.
func (r *receiver) add(w *replyPath, reply []byte) {
	r.writer.Add(udpbatch.Datagram{Octets: reply, Peer: w.to, Control: w.oob})
}

// Destinations of datagrams, from which the replies are sent.

// controlLength has room for the packet information of either family.
var controlLength = max(len(ipv4.NewControlMessage(ipv4.FlagDst)), len(ipv6.NewControlMessage(ipv6.FlagDst)))

// maxDestinations bounds the remembered destinations; a host has few addresses.
const maxDestinations = 1024

// A destination is one of the host's addresses to which requests are sent.
type destination struct {
	addr [16]byte // IPv4 mapped into IPv6
	oob  []byte   // control message that makes addr the source of a reply
}

// destinations parses control messages. The same few come with every datagram, so each is
// parsed once. It is used by one goroutine.
type destinations struct {
	ipv6  bool // socket family
	known map[string]*destination
}

// of returns the destination in a received control message. Without a message the
// destination is empty, and the kernel chooses the reply's source.
func (d *destinations) of(oob []byte) *destination {
	if known := d.known[string(oob)]; known != nil {
		return known
	}
	if d.known == nil || len(d.known) >= maxDestinations {
		d.known = make(map[string]*destination)
	}
	parse := parseDestination4
	if d.ipv6 {
		parse = parseDestination6
	}
	found := parse(oob)
	d.known[string(oob)] = found
	return found
}

func parseDestination4(oob []byte) *destination {
	var cm ipv4.ControlMessage
	if err := cm.Parse(oob); err != nil {
		return &destination{}
	}
	addr, ok := netip.AddrFromSlice(cm.Dst)
	if !ok {
		return &destination{}
	}
	return destination4(addr)
}

// parseDestination6 also handles IPv4: a socket of both families reports an IPv4 address in
// mapped form, and takes the packet information of IPv4 for the reply.
func parseDestination6(oob []byte) *destination {
	var cm ipv6.ControlMessage
	if err := cm.Parse(oob); err != nil {
		return &destination{}
	}
	addr, ok := netip.AddrFromSlice(cm.Dst)
	if !ok {
		return &destination{}
	}
	if addr.Is4In6() {
		return destination4(addr.Unmap())
	}
	reply := ipv6.ControlMessage{Src: addr.AsSlice()}
	if addr.IsLinkLocalUnicast() {
		reply.IfIndex = cm.IfIndex // such an address is only valid on its link
	}
	return &destination{addr: addr.As16(), oob: bytes.Clone(reply.Marshal())}
}

// destination4 sets no interface, because the route back may differ from the way in.
func destination4(addr netip.Addr) *destination {
	reply := ipv4.ControlMessage{Src: addr.AsSlice()}
	return &destination{addr: addr.As16(), oob: bytes.Clone(reply.Marshal())}
}

// When to read again.

const (
	// sustainedRate is the number of requests a second from which on a receiver coalesces.
	// Then more than one request comes in the time that a single one takes to wake the
	// receiver and a worker and to go to Redis and back.
	sustainedRate = 8000
	// rateTime is the time over which the rate is measured.
	rateTime = 10 * time.Millisecond
	// gatherTime is the time that requests gather: little compared to the latency of a
	// request under such a load.
	gatherTime = time.Millisecond
)

// A coalescer decides whether to let requests gather before the next read, as
// network cards do with interrupts. A single request is served at once; under
// load one read, one round trip to Redis and one send serve many requests. Only
// a client that has been the only sender for quietTime waits, and only for its
// own requests: datagrams of other senders, sound or not, delay no good client.
// The zero value is ready.
type coalescer struct {
	since     time.Time    // begin of the present measurement
	count     int          // requests since then
	sustained bool         // by the measurement before
	peer      *clientState // client of the latest requests
	shared    time.Time    // time of the latest change of client, or unsound datagram
}

// note records a datagram: its client, nil for none, and whether it is a sound request.
func (c *coalescer) note(p *clientState, sound bool, now time.Time) {
	if p != c.peer || !sound {
		c.peer, c.shared = p, now
	}
	c.count++
}

// pause returns the time to wait after a read of n datagrams.
func (c *coalescer) pause(n int, now time.Time) time.Duration {
	if past := now.Sub(c.since); past >= rateTime {
		c.sustained = float64(c.count) >= sustainedRate*past.Seconds()
		c.since, c.count = now, 0
	}
	if !c.sustained || n >= receiveBatch || now.Sub(c.shared) < quietTime {
		return 0
	}
	return gatherTime
}

// Sockets.

// receiveBuffer is the requested kernel buffer of a socket in octets: some tens of
// thousands of requests, as a large BNG sends at once after a reboot.
const receiveBuffer = 32 << 20

// A socket is one bound UDP socket that reports the destination address of each datagram.
type socket struct {
	*net.UDPConn
	batches *udpbatch.Conn
	index   int
}

func openSocket(o *Options, listen string, index int) (*socket, error) {
	network, err := networkOf("udp", listen)
	if err != nil {
		return nil, err
	}
	c, err := o.ListenUDP(network, listen)
	if err != nil {
		return nil, err
	}
	s := &socket{UDPConn: c, index: index}
	if err = errors.Join(enlargeBuffer(c), askDestinations(c)); err == nil {
		s.batches, err = udpbatch.New(c)
	}
	if err == nil {
		err = errors.Join(s.batches.AllowFragments(), s.batches.Stamp())
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return s, nil
}

// bindUDP binds a new socket.
func bindUDP(network, address string) (*net.UDPConn, error) {
	at, err := net.ResolveUDPAddr(network, address)
	if err != nil {
		return nil, err
	}
	return net.ListenUDP(network, at)
}

func listenTCP(listen string) (net.Listener, error) {
	network, err := networkOf("tcp", listen)
	if err != nil {
		return nil, err
	}
	return net.Listen(network, listen)
}

// networkOf keeps IPv6 sockets to IPv6, so that "0.0.0.0:1813" and "[::]:1813" can exist
// side by side; only an empty host means both families of the transport, "udp" or "tcp".
func networkOf(transport, listen string) (string, error) {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return "", err
	}
	if host == "" {
		return transport, nil
	}
	addr, err := netip.ParseAddr(host)
	switch {
	case err != nil:
		return "", err
	case addr.Is4():
		return transport + "4", nil
	}
	return transport + "6", nil
}

// askDestinations makes the kernel report the destination address of each datagram.
func askDestinations(c *net.UDPConn) (err error) {
	if c.LocalAddr().(*net.UDPAddr).IP.To4() != nil {
		err = ipv4.NewPacketConn(c).SetControlMessage(ipv4.FlagDst, true)
	} else {
		err = ipv6.NewPacketConn(c).SetControlMessage(ipv6.FlagDst, true)
	}
	if err != nil {
		return fmt.Errorf("ask for destination addresses: %w", err)
	}
	return nil
}

// enlargeBuffer sets the receive buffer by privilege, or else as much of it as
// net.core.rmem_max grants.
func enlargeBuffer(c *net.UDPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	controlErr := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer)
		if err != nil {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
		}
	})
	return errors.Join(err, controlErr)
}
