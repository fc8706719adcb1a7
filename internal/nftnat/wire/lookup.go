package wire

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	lookupBuffer = 4 << 20 // asked for the answers to one send
	maxAsked     = 512     // keys in one send
	minAsked     = 16
	answerBytes  = 4 << 10 // of the receive buffer that one answer takes at most, the kernel's overhead included
	answerRoom   = 1 << 10 // an element of ours with the longest table name
	answersRead  = 128     // datagrams a system call
	maxDeaf      = 10      // sends in a row that got no answer
)

// ErrNoAnswer says that the receive buffer is too small for any answer.
var ErrNoAnswer = errors.New("nf_tables answers get lost")

// Lookup asks a set for n elements by their keys, and yields what stands: the number
// of the key and the attributes of its element, which are valid only until yield
// returns. A key that is not in the set, or whose set is not there, is passed over. It
// costs some 3 us a key, whether it is there or not, however large the set.
//
// key appends the i-th key as an element's attributes. Every key is a message of its
// own, many in one send: of one with several the kernel answers none behind the first
// that is missing. Every answer is a datagram that the kernel puts into the receive
// buffer or drops, so what was not answered is asked again, fewer at once.
func (c *Conn) Lookup(ctx context.Context, table, set string, n int, key func(dst []byte, i int) []byte, yield func(i int, attrs []byte)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	q := question{
		n:     n,
		body:  func(dst []byte, i int) []byte { return appendQuestion(dst, table, set, i, key) },
		yield: yield,
	}
	for deaf := 0; len(q.lost) > 0 || q.next < n; {
		if err := ctx.Err(); err != nil {
			return err
		}
		answered, err := c.askLocked(&q)
		if err != nil {
			return err
		}
		if deaf++; answered > 0 {
			deaf = 0
		}
		if deaf > maxDeaf {
			return ErrNoAnswer
		}
	}
	return nil
}

func appendQuestion(dst []byte, table, set string, i int, key func([]byte, int) []byte) []byte {
	dst = AppendString(dst, unix.NFTA_SET_ELEM_LIST_TABLE, table)
	dst = AppendString(dst, unix.NFTA_SET_ELEM_LIST_SET, set)
	list := len(dst)
	dst = BeginNested(dst, unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	start := len(dst)
	dst = key(BeginNested(dst, unix.NFTA_LIST_ELEM), i)
	return EndNested(EndNested(dst, start), list)
}

// question is what a Lookup still has to ask.
type question struct {
	n    int
	next int   // the first that was never asked
	lost []int // asked, and not answered

	body  func(dst []byte, i int) []byte
	yield func(i int, attrs []byte)

	asked []int  // by message of the send under way; -1 when answered
	buf   []byte // the send
}

// take chooses up to max keys to ask next.
func (q *question) take(max int) []int {
	q.asked = q.asked[:0]
	for ; len(q.lost) > 0 && len(q.asked) < max; q.lost = q.lost[1:] {
		q.asked = append(q.asked, q.lost[0])
	}
	for ; q.next < q.n && len(q.asked) < max; q.next++ {
		q.asked = append(q.asked, q.next)
	}
	return q.asked
}

// askLocked asks some keys and returns how many got an answer.
func (c *Conn) askLocked(q *question) (answered int, err error) {
	q.buf = q.buf[:0]
	first := c.sequence + 1
	for _, i := range q.take(c.asked) {
		c.sequence++
		start := len(q.buf)
		q.buf = q.body(appendMessage(q.buf, messageType(GetElements), unix.NLM_F_REQUEST, 0), i)
		setLength(q.buf, start)
		setSequence(q.buf[start:], c.sequence)
	}
	if err := c.sendLocked(q.buf); err != nil {
		return 0, fmt.Errorf("send %d nf_tables look-ups: %w", len(q.asked), err)
	}
	for {
		n, errno := c.receiveAllLocked()
		switch {
		case errors.Is(errno, unix.ENOBUFS):
			continue // some answers were dropped; those that were not come next
		case errors.Is(errno, unix.EAGAIN):
			c.adaptLocked(q, answered)
			return answered, nil
		case errno != nil:
			return answered, fmt.Errorf("receive nf_tables look-ups: %w", errno)
		}
		for j := range n {
			took, err := q.answers(c.answers.datagram(j), first)
			if err != nil {
				return answered, err
			}
			answered += took
		}
	}
}

// adaptLocked notes what got no answer, and asks fewer at once if there was any.
func (c *Conn) adaptLocked(q *question, answered int) {
	if answered == len(q.asked) {
		return
	}
	c.asked = max(minAsked, c.asked/2)
	for _, i := range q.asked {
		if i >= 0 {
			q.lost = append(q.lost, i)
		}
	}
}

// answers takes the answers in a datagram. The first one to a question counts.
func (q *question) answers(datagram []byte, first uint32) (taken int, err error) {
	parseReplies(datagram, func(r reply) bool {
		at := int(int32(r.sequence - first))
		if at < 0 || at >= len(q.asked) || q.asked[at] < 0 {
			return true
		}
		switch {
		case r.typ == unix.NLMSG_ERROR:
			if e := r.errno(); e == unix.ENOBUFS {
				return true // its answer did not fit
			} else if e != unix.ENOENT {
				err = fmt.Errorf("look up nf_tables element: %w", e)
				return false
			}
		case r.typ == messageType(NewElements) && len(r.payload) >= familyHeader:
			list := Attr(r.payload[familyHeader:], unix.NFTA_SET_ELEM_LIST_ELEMENTS)
			q.yield(q.asked[at], Attr(list, unix.NFTA_LIST_ELEM))
		default:
			return true
		}
		q.asked[at] = -1
		taken++
		return true
	})
	return taken, err
}

// answers is room for what one recvmmsg takes.
type answers struct {
	messages []unix.Mmsghdr
	iovecs   []unix.Iovec
	room     []byte
}

func newAnswers() *answers {
	a := &answers{
		messages: make([]unix.Mmsghdr, answersRead),
		iovecs:   make([]unix.Iovec, answersRead),
		room:     make([]byte, answersRead*answerRoom),
	}
	for i := range a.messages {
		a.iovecs[i].Base = &a.room[i*answerRoom]
		a.iovecs[i].SetLen(answerRoom)
		a.messages[i].Hdr.Iov = &a.iovecs[i]
		a.messages[i].Hdr.SetIovlen(1)
	}
	return a
}

func (a *answers) datagram(i int) []byte {
	return a.room[i*answerRoom:][:min(int(a.messages[i].Len), answerRoom)]
}

// receiveAllLocked takes datagrams that are there, and waits for none: the kernel
// answers before the send returns.
func (c *Conn) receiveAllLocked() (n int, result error) {
	err := c.raw.Control(func(fd uintptr) {
		for {
			got, _, errno := syscall.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&c.answers.messages[0])),
				uintptr(len(c.answers.messages)), unix.MSG_DONTWAIT, 0, 0)
			if errno == unix.EINTR {
				continue
			}
			if errno != 0 {
				result = errno
			}
			n = int(got)
			return
		}
	})
	if err != nil {
		return 0, err
	}
	if result != nil {
		return 0, result
	}
	return n, nil
}
