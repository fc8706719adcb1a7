package wire

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/nlmsg"
)

const (
	lookupBuffer = 4 << 20 // asked for the answers to one send
	maxAsked     = 512     // keys in one send
	minAsked     = 16
	answerBytes  = 4 << 10 // of the receive buffer that one answer takes at most, the kernel's overhead included
	answerRoom   = 1 << 10 // an element of ours with the longest table name
	answersRead  = 128     // datagrams a system call
	maxDeaf      = 10      // sends in a row without an answer
)

// ErrNoAnswer: the receive buffer is too small for any answer.
var ErrNoAnswer = errors.New("nf_tables answers get lost")

// Lookup asks a set for n elements by their keys, and yields each present one: the number of
// the key and the attributes of the element, which are valid only until yield returns. A key
// that is not in the set, or whose set does not exist, is passed over. A key costs some 3 us,
// present or not, in a set of any size.
//
// key appends the i-th key as an element's attributes. Every key is a message of its own, many
// in one send: of one with several keys the kernel answers none behind the first that is
// missing. Every answer is a datagram that the kernel puts into the receive buffer or drops,
// so unanswered keys are asked again, fewer at once.
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
	dst = nlmsg.AppendString(dst, unix.NFTA_SET_ELEM_LIST_TABLE, table)
	dst = nlmsg.AppendString(dst, unix.NFTA_SET_ELEM_LIST_SET, set)
	list := len(dst)
	dst = nlmsg.BeginNested(dst, unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	start := len(dst)
	dst = key(nlmsg.BeginNested(dst, unix.NFTA_LIST_ELEM), i)
	return nlmsg.EndNested(nlmsg.EndNested(dst, start), list)
}

// question is the state of one Lookup.
type question struct {
	n    int
	next int   // the first key not asked yet
	lost []int // asked, and not answered

	body  func(dst []byte, i int) []byte
	yield func(i int, attrs []byte)

	asked []int  // by message of the send under way; -1 when answered
	buf   []byte // the send
}

// nextKeys chooses up to max keys to ask next.
func (q *question) nextKeys(max int) []int {
	q.asked = q.asked[:0]
	for ; len(q.lost) > 0 && len(q.asked) < max; q.lost = q.lost[1:] {
		q.asked = append(q.asked, q.lost[0])
	}
	for ; q.next < q.n && len(q.asked) < max; q.next++ {
		q.asked = append(q.asked, q.next)
	}
	return q.asked
}

// askLocked asks for some keys and returns the number of answers.
func (c *Conn) askLocked(q *question) (answered int, err error) {
	q.buf = q.buf[:0]
	first := c.sequence + 1
	for _, i := range q.nextKeys(c.asked) {
		c.sequence++
		start := len(q.buf)
		q.buf = q.body(appendMessage(q.buf, messageType(GetElements), unix.NLM_F_REQUEST, 0), i)
		q.buf = nlmsg.End(q.buf, start)
		nlmsg.SetSeq(q.buf[start:], c.sequence)
	}
	if err := nlmsg.Send(c.raw, q.buf); err != nil {
		return 0, fmt.Errorf("send %d nf_tables look-ups: %w", len(q.asked), err)
	}
	for {
		n, errno := c.receiveAllLocked()
		switch {
		case errors.Is(errno, unix.ENOBUFS):
			continue // the kernel dropped some answers; their keys come next
		case errors.Is(errno, unix.EAGAIN):
			c.adaptLocked(q, answered)
			return answered, nil
		case errno != nil:
			return answered, fmt.Errorf("receive nf_tables look-ups: %w", errno)
		}
		for j := range n {
			took, err := q.answers(c.answers.At(j), first)
			if err != nil {
				return answered, err
			}
			answered += took
		}
	}
}

// adaptLocked notes the keys without an answer, and asks for fewer at once if there are any.
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

// answers reads the answers in a datagram. Only the first answer to a key counts.
func (q *question) answers(datagram []byte, first uint32) (taken int, err error) {
	for m := range nlmsg.Messages(datagram) {
		at := int(int32(m.Seq - first))
		if at < 0 || at >= len(q.asked) || q.asked[at] < 0 {
			continue
		}
		switch {
		case m.Type == unix.NLMSG_ERROR:
			if e, _ := m.Errno(); e == unix.ENOBUFS {
				continue // its answer did not fit
			} else if e != unix.ENOENT {
				return taken, fmt.Errorf("look up nf_tables element: %w", e)
			}
		case m.Type == messageType(NewElements) && len(m.Payload) >= nlmsg.FamilyLen:
			list := nlmsg.Attr(m.Payload[nlmsg.FamilyLen:], unix.NFTA_SET_ELEM_LIST_ELEMENTS)
			q.yield(q.asked[at], nlmsg.Attr(list, unix.NFTA_LIST_ELEM))
		default:
			continue
		}
		q.asked[at] = -1
		taken++
	}
	return taken, nil
}

// receiveAllLocked receives the queued datagrams and does not wait: the kernel answers before
// the send returns.
func (c *Conn) receiveAllLocked() (n int, err error) {
	var errno unix.Errno
	if err := c.raw.Control(func(fd uintptr) { n, errno = c.answers.Receive(fd) }); err != nil {
		return 0, err
	}
	if errno != 0 {
		return 0, errno
	}
	return n, nil
}
