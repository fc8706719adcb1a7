package udpbatch

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// segmentControl is the space of the control message with the segment size.
var segmentControl = unix.CmsgSpace(4)

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
		r.controls[i] = make([]byte, control+segmentControl)
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
	var size int
	d.Control, size = cutSegment(r.controls[i][:m.Hdr.Controllen])
	for whole := d.Octets; size > 0 && len(whole) > size; whole = d.Octets {
		d.Octets = whole[:size:size]
		r.datagrams = append(r.datagrams, d)
		d.Octets = whole[size:]
	}
	r.datagrams = append(r.datagrams, d)
}

// cutSegment removes the segment size from control messages, where the kernel
// puts it first; 0 if there is none.
func cutSegment(control []byte) ([]byte, int) {
	if len(control) < unix.SizeofCmsghdr {
		return control, 0
	}
	h, data, rest, err := unix.ParseOneSocketControlMessage(control)
	if err != nil || h.Level != unix.SOL_UDP || h.Type != unix.UDP_GRO || len(data) < 4 {
		return control, 0
	}
	return rest, int(binary.NativeEndian.Uint32(data))
}
