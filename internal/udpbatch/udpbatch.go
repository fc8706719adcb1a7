package udpbatch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Datagram is a received datagram, or one to send.
type Datagram struct {
	Octets  []byte
	Peer    Address
	Control []byte    // control messages
	Arrived time.Time // when the kernel took a received one, by the system's clock; zero without Stamp
}

// A Conn is a UDP socket that Readers and Writers share.
type Conn struct {
	raw      syscall.RawConn
	segments atomic.Bool // the kernel cuts a message into segments
}

// New returns a Conn for a socket, which the caller still owns.
func New(c *net.UDPConn) (*Conn, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	conn := &Conn{raw: raw}
	// Linux 4.18 cuts segments. 0 is no size for the socket: each message gives its
	// own.
	conn.segments.Store(conn.set(unix.SOL_UDP, unix.UDP_SEGMENT, 0) == nil)
	return conn, nil
}

// Coalesce asks the kernel to join datagrams of one peer and size that arrive
// together; Readers split them again. Readers' buffers should then hold 64 KiB.
// It needs Linux 5.0.
func (c *Conn) Coalesce() error {
	if err := c.set(unix.SOL_UDP, unix.UDP_GRO, 1); err != nil {
		return fmt.Errorf("coalesce datagrams: %w", err)
	}
	return nil
}

// Stamp asks the kernel to tell when each datagram arrived, however long it waits to be read.
// For some milliseconds after the first call of the machine these are the times of reading.
func (c *Conn) Stamp() error {
	if err := c.set(unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
		return fmt.Errorf("stamp datagrams: %w", err)
	}
	return nil
}

// Drops returns the number of datagrams that the kernel has dropped at the
// socket, mostly because its receive buffer was full. It wraps. It needs Linux
// 4.12.
func (c *Conn) Drops() (uint32, error) {
	var info [unix.SK_MEMINFO_VARS]uint32
	size := uint32(unsafe.Sizeof(info))
	var errno syscall.Errno
	err := c.raw.Control(func(fd uintptr) {
		_, _, errno = syscall.RawSyscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_MEMINFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	})
	switch {
	case err != nil:
		return 0, err
	case errno != 0:
		return 0, fmt.Errorf("ask for the drops of a socket: %w", errno)
	}
	return info[unix.SK_MEMINFO_DROPS], nil
}

// AllowFragments lets datagrams arrive over a path with a smaller MTU than
// ours, even if ICMP is filtered. Over IPv4 they are sent without DF, so that
// routers may fragment them (RFC 791 section 3.2). Over IPv6 only the sender
// fragments, and Linux only datagrams above its link's MTU. Their fragments
// then get the minimum MTU of IPv6 (RFC 8200 section 5). Smaller datagrams
// still need Packet Too Big (RFC 8201).
func (c *Conn) AllowFragments() error {
	family, err := c.get(unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return fmt.Errorf("family of the socket: %w", err)
	}
	// A socket of both families sends IPv4 too.
	if err := c.set(unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT); err != nil {
		return fmt.Errorf("send without DF: %w", err)
	}
	if family == unix.AF_INET6 {
		if err := c.set(unix.IPPROTO_IPV6, unix.IPV6_MTU, minMTU6); err != nil {
			return fmt.Errorf("limit fragments to %d octets: %w", minMTU6, err)
		}
	}
	return nil
}

func (c *Conn) get(level, option int) (value int, err error) {
	if ctlErr := c.raw.Control(func(fd uintptr) {
		value, err = unix.GetsockoptInt(int(fd), level, option)
	}); ctlErr != nil {
		return 0, ctlErr
	}
	return value, err
}

func (c *Conn) set(level, option, value int) error {
	var err error
	if ctlErr := c.raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), level, option, value)
	}); ctlErr != nil {
		return ctlErr
	}
	return err
}

// System calls.

// A call is one recvmmsg or sendmmsg.
type call struct {
	number   uintptr
	messages []unix.Mmsghdr
	done     int
	errno    syscall.Errno
}

// run makes the call and reports whether it is over: false if the socket was
// not ready. The call never blocks, so it bypasses the Go scheduler, which
// would cost more than it saves and keep the monitor thread awake.
func (c *call) run(fd uintptr) bool {
	for {
		n, _, errno := syscall.RawSyscall6(c.number, fd, uintptr(unsafe.Pointer(&c.messages[0])),
			uintptr(len(c.messages)), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case unix.EINTR:
		case unix.EAGAIN:
			return false
		default:
			c.done, c.errno = int(n), errno
			return true
		}
	}
}

func (c *call) result() (int, error) {
	if c.errno != 0 {
		return 0, c.errno
	}
	return c.done, nil
}

// Addresses of peers.

// An Address is a peer's address in the kernel's form, so that an answer needs
// no conversion. Addresses can be compared; the zero value is the peer of a
// connected socket.
type Address struct {
	raw    [unix.SizeofSockaddrInet6]byte
	length uint8 // used octets of raw
}

// AddrPort returns the address, not mapped into IPv6; the zero AddrPort for the
// zero Address. An IPv6 zone is the name of the interface.
func (a *Address) AddrPort() netip.AddrPort {
	port := binary.BigEndian.Uint16(a.raw[2:])
	switch a.length {
	case unix.SizeofSockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(a.raw[4:8])), port)
	case unix.SizeofSockaddrInet6:
		addr := netip.AddrFrom16([16]byte(a.raw[8:24])).Unmap()
		if scope := binary.NativeEndian.Uint32(a.raw[24:]); scope != 0 && addr.Is6() {
			addr = addr.WithZone(zone(scope))
		}
		return netip.AddrPortFrom(addr, port)
	}
	return netip.AddrPort{}
}

// zones caches the names of interfaces, because asking the kernel is slow.
var zones sync.Map // uint32 to string

// zone is the name of an interface, or its number if it no longer exists.
func zone(scope uint32) string {
	if known, ok := zones.Load(scope); ok {
		return known.(string)
	}
	name := strconv.FormatUint(uint64(scope), 10)
	if i, err := net.InterfaceByIndex(int(scope)); err == nil {
		name = i.Name
	}
	zones.Store(scope, name)
	return name
}

// Reading.

// Space of the control messages with the segment size, and with that and the time of arrival.
var (
	segmentControl = unix.CmsgSpace(4)
	ownControl     = segmentControl + unix.CmsgSpace(stampSize)
)

const stampSize = int(unsafe.Sizeof(unix.Timespec{}))

// A Reader receives datagrams. It is not safe for concurrent use.
type Reader struct {
	conn      *Conn
	call      call
	run       func(fd uintptr) bool // call.run
	messages  []unix.Mmsghdr
	iovecs    []unix.Iovec
	buffers   [][]byte
	controls  [][]byte
	peers     []Address
	datagrams []Datagram
	used      int // messages that the last Read filled
}

// NewReader returns a Reader of up to n messages at once, of size octets each,
// with control octets of control messages. Longer datagrams are cut off.
func (c *Conn) NewReader(n, size, control int) *Reader {
	r := &Reader{
		conn:     c,
		messages: make([]unix.Mmsghdr, n),
		iovecs:   make([]unix.Iovec, n),
		buffers:  make([][]byte, n),
		controls: make([][]byte, n),
		peers:    make([]Address, n),
		used:     n,
	}
	r.call.number = unix.SYS_RECVMMSG
	r.run = r.call.run
	for i := range n {
		r.buffers[i] = make([]byte, size)
		r.controls[i] = make([]byte, control+ownControl)
		r.iovecs[i].Base = &r.buffers[i][0]
		r.iovecs[i].SetLen(size)
		h := &r.messages[i].Hdr
		h.Name, h.Control, h.Iov = &r.peers[i].raw[0], &r.controls[i][0], &r.iovecs[i]
		h.SetIovlen(1)
	}
	return r
}

// Read waits for datagrams and returns those that have arrived. They are valid
// until the next Read.
func (r *Reader) Read() ([]Datagram, error) {
	for i := range r.messages[:r.used] {
		h := &r.messages[i].Hdr
		h.Namelen = uint32(len(r.peers[i].raw))
		h.SetControllen(len(r.controls[i]))
	}
	r.call.messages = r.messages
	if err := r.conn.raw.Read(r.run); err != nil {
		r.used = 0
		return nil, err
	}
	n, err := r.call.result()
	r.used = n
	r.datagrams = r.datagrams[:0]
	for i := range r.messages[:n] {
		r.appendDatagrams(i)
	}
	return r.datagrams, err
}

// appendDatagrams appends the datagrams of one message.
func (r *Reader) appendDatagrams(i int) {
	m := &r.messages[i]
	r.peers[i].length = uint8(m.Hdr.Namelen)
	d := Datagram{Octets: r.buffers[i][:m.Len], Peer: r.peers[i]}
	size := d.cutOwn(r.controls[i][:m.Hdr.Controllen])
	for whole := d.Octets; size > 0 && len(whole) > size; whole = d.Octets {
		d.Octets = whole[:size:size]
		r.datagrams = append(r.datagrams, d)
		d.Octets = whole[size:]
	}
	r.datagrams = append(r.datagrams, d)
}

// cutOwn takes off the control messages of Stamp and Coalesce, which come first, and returns the
// size of the segments, 0 for one datagram.
func (d *Datagram) cutOwn(control []byte) (size int) {
	for d.Control = control; len(control) >= unix.SizeofCmsghdr; d.Control = control {
		h, data, rest, err := unix.ParseOneSocketControlMessage(control)
		switch {
		case err != nil:
			return size
		case h.Level == unix.SOL_UDP && h.Type == unix.UDP_GRO && len(data) >= 4:
			size = int(binary.NativeEndian.Uint32(data))
		case h.Level == unix.SOL_SOCKET && h.Type == unix.SCM_TIMESTAMPNS && len(data) >= stampSize:
			at := (*unix.Timespec)(unsafe.Pointer(&data[0])) // control messages are aligned
			d.Arrived = time.Unix(at.Unix())
		default:
			return size
		}
		control = rest
	}
	return size
}

// Sending.

const (
	// maxSegments bounds the datagrams of one message: the limit of all kernels.
	maxSegments = 64
	// maxSegment bounds a datagram that goes with others, in octets. Every IPv6
	// link carries this size unfragmented (RFC 8200 section 5); the kernel cuts
	// segments only if it need not fragment them.
	maxSegment = minMTU6 - 40 - 8
	// minMTU6 is the minimum MTU of IPv6, in octets (RFC 8200 section 5).
	minMTU6 = 1280
	// maxTrain bounds the octets of one message: it must fit into an IPv4 datagram
	// before it is cut.
	maxTrain = 65_535 - 20 - 8
	// searched bounds the number of trains that are searched for one that a
	// datagram can join.
	searched = 8
	// maxControl is the space for the control messages of a message with segments.
	maxControl = 64
)

// A Writer collects datagrams and sends them together. Datagrams of one peer,
// size and control message go in one message that the kernel cuts, if it can.
// The order of datagrams is not kept. It is not safe for concurrent use.
type Writer struct {
	conn     *Conn
	failed   func(error) (again bool)
	call     call
	run      func(fd uintptr) bool // call.run
	queue    []Datagram
	next     []int // index in queue of the train's next datagram; unused for its last
	trains   []train
	messages []unix.Mmsghdr
	iovecs   []unix.Iovec
	controls [][maxControl]byte
}

// A train holds the datagrams of one message.
type train struct{ first, last, count int } // indexes in queue

// NewWriter returns a Writer that holds up to n datagrams. It calls failed with each error of
// sending: if that returns true, it tries again; otherwise the message is given up.
func (c *Conn) NewWriter(n int, failed func(error) (again bool)) *Writer {
	w := &Writer{
		conn:     c,
		failed:   failed,
		queue:    make([]Datagram, 0, n),
		next:     make([]int, n),
		trains:   make([]train, 0, n),
		messages: make([]unix.Mmsghdr, n),
		iovecs:   make([]unix.Iovec, n),
		controls: make([][maxControl]byte, n/2),
	}
	w.call.number = unix.SYS_SENDMMSG
	w.run = w.call.run
	return w
}

// Add queues a datagram, which must not change before Flush. It sends a full queue first.
func (w *Writer) Add(d Datagram) {
	if len(w.queue) == cap(w.queue) {
		w.Flush()
	}
	w.queue = append(w.queue, d)
}

// Flush sends the queue.
func (w *Writer) Flush() {
	for len(w.queue) > 0 {
		w.arrange()
		w.address()
		sent := w.send()
		w.keep(w.trains[sent:])
	}
}

// arrange joins datagrams of equal peer, size and control into trains.
func (w *Writer) arrange() {
	w.trains = w.trains[:0]
	segments := w.conn.segments.Load()
	for i := range w.queue {
		if t := w.trainOf(i); segments && t != nil {
			w.next[t.last] = i
			t.last = i
			t.count++
			continue
		}
		w.trains = append(w.trains, train{i, i, 1})
	}
}

// trainOf returns the train that a datagram can join, nil for none.
func (w *Writer) trainOf(i int) *train {
	d := &w.queue[i]
	if len(d.Octets) > maxSegment || len(d.Octets) == 0 || len(d.Control)+segmentControl > maxControl {
		return nil
	}
	for j := len(w.trains) - 1; j >= max(0, len(w.trains)-searched); j-- {
		t := &w.trains[j]
		other := &w.queue[t.first]
		if t.count < min(maxSegments, maxTrain/len(d.Octets)) && len(other.Octets) == len(d.Octets) && other.Peer == d.Peer &&
			unsafe.SliceData(other.Control) == unsafe.SliceData(d.Control) {
			return t
		}
	}
	return nil
}

// address makes a message from each train.
func (w *Writer) address() {
	iovecs, cut := w.iovecs, 0
	for i := range w.trains {
		t := &w.trains[i]
		d := &w.queue[t.first]
		h := &w.messages[i].Hdr
		*h = unix.Msghdr{Iov: &iovecs[0]}
		h.SetIovlen(t.count)
		for j, at := 0, t.first; j < t.count; j, at = j+1, w.next[at] {
			octets := w.queue[at].Octets
			iovecs[j].Base = unsafe.SliceData(octets)
			iovecs[j].SetLen(len(octets))
		}
		iovecs = iovecs[t.count:]
		if d.Peer.length > 0 {
			h.Name, h.Namelen = &d.Peer.raw[0], uint32(d.Peer.length)
		}
		control := d.Control
		if t.count > 1 {
			control = appendSegment(append(w.controls[cut][:0], control...), len(d.Octets))
			cut++
		}
		if len(control) > 0 {
			h.Control = &control[0]
			h.SetControllen(len(control))
		}
	}
}

// appendSegment appends the control message that gives the size of segments.
func appendSegment(control []byte, size int) []byte {
	at := len(control)
	control = append(control, make([]byte, unix.CmsgSpace(2))...)
	h := (*unix.Cmsghdr)(unsafe.Pointer(&control[at]))
	h.Level, h.Type = unix.SOL_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	binary.NativeEndian.PutUint16(control[at+unix.CmsgLen(0):], uint16(size))
	return control
}

// send sends messages until all are sent, or the kernel turns out not to cut
// segments. It returns the number of trains that are done.
func (w *Writer) send() (done int) {
	for done < len(w.trains) {
		w.call.messages = w.messages[done:len(w.trains)]
		err := w.conn.raw.Write(w.run)
		n := 0
		if err == nil {
			n, err = w.call.result()
		}
		done += n
		switch {
		case err == nil:
		case w.trains[done].count > 1 && uncut(err):
			w.conn.segments.Store(false)
			return done
		case !w.failed(err):
			done++
		}
	}
	return done
}

// uncut reports whether the kernel, or the device, may have refused the
// segmentation and not the datagrams.
func uncut(err error) bool {
	return errors.Is(err, unix.EIO) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EMSGSIZE)
}

// keep leaves only the datagrams of these trains in the queue.
func (w *Writer) keep(trains []train) {
	var left []Datagram
	for _, t := range trains {
		for range t.count {
			left = append(left, w.queue[t.first])
			t.first = w.next[t.first]
		}
	}
	clear(w.queue)
	w.queue = append(w.queue[:0], left...)
}
