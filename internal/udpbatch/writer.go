package udpbatch

import (
	"encoding/binary"
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

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

// NewWriter returns a Writer that holds up to n datagrams.
func (c *Conn) NewWriter(n int) *Writer {
	w := &Writer{
		conn:     c,
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

// Full reports whether Add needs a Flush first.
func (w *Writer) Full() bool { return len(w.queue) == cap(w.queue) }

// Add queues a datagram, which must not change before Flush.
func (w *Writer) Add(d Datagram) { w.queue = append(w.queue, d) }

// Flush sends the queue. It calls failed with each error: if that returns true,
// it tries again; otherwise the message is given up.
func (w *Writer) Flush(failed func(error) (again bool)) {
	for len(w.queue) > 0 {
		w.arrange()
		w.address()
		sent := w.send(failed)
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
			iovecs[j] = iovec(w.queue[at].Octets)
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

func iovec(b []byte) (v unix.Iovec) {
	v.Base = unsafe.SliceData(b)
	v.SetLen(len(b))
	return v
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
func (w *Writer) send(failed func(error) bool) (done int) {
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
		case !failed(err):
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
