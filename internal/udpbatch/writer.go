package udpbatch

import (
	"encoding/binary"
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// maxSegments bounds the datagrams of one message: what all kernels take.
	maxSegments = 64
	// maxSegment bounds a datagram that goes with others, in octets: what passes
	// every IPv6 link unfragmented (RFC 8200 section 5). The kernel cuts
	// segments only if it need not fragment them.
	maxSegment = minMTU6 - 40 - 8
	// minMTU6 is what every IPv6 link takes, in octets (RFC 8200 section 5).
	minMTU6 = 1280
	// maxTrain bounds the octets of one message: what fits into an IPv4 datagram,
	// which it is until it is cut.
	maxTrain = 65_535 - 20 - 8
	// searched bounds the messages among which a datagram looks for others of
	// its kind.
	searched = 8
	// maxControl is room for the control messages of a message with segments.
	maxControl = 64
)

// A Writer collects datagrams and sends them together. Those of one peer, size
// and control message go in one message that the kernel cuts, if it can. The
// order between datagrams is not kept. It belongs to one goroutine.
type Writer struct {
	conn     *Conn
	call     call
	run      func(fd uintptr) bool // call.run
	queue    []Datagram
	next     []int // in queue, of the same message; the first of all for the last
	trains   []train
	messages []unix.Mmsghdr
	iovecs   []unix.Iovec
	controls [][maxControl]byte
}

// A train is the datagrams of one message.
type train struct{ first, last, count int } // in queue

// NewWriter makes a Writer that holds up to n datagrams.
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

// Full reports whether Flush must come before the next Add.
func (w *Writer) Full() bool { return len(w.queue) == cap(w.queue) }

// Add queues a datagram, which must not change before Flush.
func (w *Writer) Add(d Datagram) { w.queue = append(w.queue, d) }

// Flush sends what is queued. Each error is told, and the function says whether
// to try again; otherwise the message at fault is given up.
func (w *Writer) Flush(failed func(error) (again bool)) {
	for len(w.queue) > 0 {
		w.arrange()
		w.address()
		sent := w.send(failed)
		w.keep(w.trains[sent:])
	}
}

// arrange joins datagrams of one kind into trains.
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

// trainOf finds the train that a datagram can go with; nil when there is none.
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

// address makes a message of each train.
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

// send sends messages until all are gone, or the kernel turns out not to cut
// segments. It returns how many trains are done with.
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

// uncut reports whether the kernel, or the device on the way, may have refused
// the segments and not the datagrams.
func uncut(err error) bool {
	return errors.Is(err, unix.EIO) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EMSGSIZE)
}

// keep leaves the datagrams of trains in the queue.
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
