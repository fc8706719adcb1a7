package wire

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/sessiond/sessiond/internal/nlmsg"
	"golang.org/x/sys/unix"
)

const family = unix.NFPROTO_IPV4 // of every table here: "ip"

// Command is an nf_tables message type, NFT_MSG_*.
type Command uint8

// The commands of batches and dumps.
const (
	NewTable    Command = unix.NFT_MSG_NEWTABLE
	GetTable    Command = unix.NFT_MSG_GETTABLE
	DelTable    Command = unix.NFT_MSG_DELTABLE
	NewChain    Command = unix.NFT_MSG_NEWCHAIN
	GetChain    Command = unix.NFT_MSG_GETCHAIN
	DelChain    Command = unix.NFT_MSG_DELCHAIN
	NewRule     Command = unix.NFT_MSG_NEWRULE
	GetRule     Command = unix.NFT_MSG_GETRULE
	DelRule     Command = unix.NFT_MSG_DELRULE
	NewSet      Command = unix.NFT_MSG_NEWSET
	GetSet      Command = unix.NFT_MSG_GETSET
	DelSet      Command = unix.NFT_MSG_DELSET
	NewElements Command = unix.NFT_MSG_NEWSETELEM
	GetElements Command = unix.NFT_MSG_GETSETELEM
	DelElements Command = unix.NFT_MSG_DELSETELEM
	NewObject   Command = unix.NFT_MSG_NEWOBJ
	GetObject   Command = unix.NFT_MSG_GETOBJ
	DelObject   Command = unix.NFT_MSG_DELOBJ

	NewFlowtable Command = unix.NFT_MSG_NEWFLOWTABLE
	GetFlowtable Command = unix.NFT_MSG_GETFLOWTABLE
	DelFlowtable Command = unix.NFT_MSG_DELFLOWTABLE

	GetGeneration Command = unix.NFT_MSG_GETGEN
)

// Op names one operation of a batch, for errors.
type Op struct {
	Verb   string // such as "add element"
	Object string // such as "gate"
}

type message struct {
	offset int // of its header in Batch.buf
	op     Op
}

// Batch is a list of operations on nf_tables that are committed together. The
// zero Batch is empty and ready for use.
type Batch struct {
	buf      []byte
	messages []message
}

// Empty reports whether there is nothing to commit.
func (b *Batch) Empty() bool { return len(b.messages) == 0 }

// Size is the number of bytes the batch takes on the wire, its frame included.
func (b *Batch) Size() int { return len(b.buf) + nlmsg.HeaderLen + nlmsg.FamilyLen }

// Reset empties the batch but keeps its memory.
func (b *Batch) Reset() { b.buf, b.messages = b.buf[:0], b.messages[:0] }

// Add appends an operation whose attributes body appends.
func (b *Batch) Add(cmd Command, op Op, body func(dst []byte) []byte) {
	if len(b.buf) == 0 {
		b.buf = appendMessage(b.buf, unix.NFNL_MSG_BATCH_BEGIN, unix.NLM_F_REQUEST, unix.NFNL_SUBSYS_NFTABLES)
	}
	flags := uint16(unix.NLM_F_REQUEST)
	switch cmd {
	case NewRule:
		flags |= unix.NLM_F_CREATE | unix.NLM_F_APPEND
	case NewTable, NewChain, NewSet, NewElements, NewObject, NewFlowtable:
		flags |= unix.NLM_F_CREATE
	}
	start := len(b.buf)
	b.buf = appendMessage(b.buf, messageType(cmd), flags, 0)
	b.buf = nlmsg.End(body(b.buf), start)
	b.messages = append(b.messages, message{start, op})
}

// maxElementBytes keeps the list of elements of one message, an attribute,
// well below 64 KiB.
const maxElementBytes = 60 << 10

// Elements appends n elements of a set, in as few messages as fit. element
// appends the attributes of the i-th one, at most 1 KiB of them.
func (b *Batch) Elements(cmd Command, op Op, table, set string, n int, element func(dst []byte, i int) []byte) {
	for i := 0; i < n; {
		b.Add(cmd, op, func(dst []byte) []byte {
			dst = nlmsg.AppendString(dst, unix.NFTA_SET_ELEM_LIST_TABLE, table)
			dst = nlmsg.AppendString(dst, unix.NFTA_SET_ELEM_LIST_SET, set)
			list := len(dst)
			dst = nlmsg.BeginNested(dst, unix.NFTA_SET_ELEM_LIST_ELEMENTS)
			for ; i < n && len(dst)-list < maxElementBytes; i++ {
				start := len(dst)
				dst = element(nlmsg.BeginNested(dst, unix.NFTA_LIST_ELEM), i)
				dst = nlmsg.EndNested(dst, start)
			}
			return nlmsg.EndNested(dst, list)
		})
	}
}

func messageType(cmd Command) uint16 {
	return unix.NFNL_SUBSYS_NFTABLES<<8 | uint16(cmd)
}

// appendMessage appends a message without attributes. Only the frame of a
// batch has a resource, the subsystem it is for.
func appendMessage(dst []byte, typ, flags, resource uint16) []byte {
	start := len(dst)
	nfproto := byte(family)
	if resource != 0 {
		nfproto = unix.NFPROTO_UNSPEC
	}
	dst = nlmsg.AppendFamily(nlmsg.Begin(dst, typ, flags, 0), nfproto, resource)
	return nlmsg.End(dst, start)
}

// Operations yields the operations in order, each with its attributes.
func (b *Batch) Operations() iter.Seq2[Op, []byte] {
	return func(yield func(Op, []byte) bool) {
		for i, m := range b.messages {
			end := len(b.buf)
			if i+1 < len(b.messages) {
				end = b.messages[i+1].offset
			}
			if !yield(m.op, b.buf[m.offset+nlmsg.HeaderLen+nlmsg.FamilyLen:end]) {
				return
			}
		}
	}
}

// The commit.

// Limit is the largest Batch.Size that Commit takes, in bytes. It is less than
// MaxBatch where the socket buffer could not be forced.
func (c *Conn) Limit() int { return c.limit }

// Commit sends a batch and returns when the kernel committed it, or refused it
// whole: then the error is, or joins, an *Error for each operation at fault.
// The kernel answers before the send returns, so ctx is looked at only before.
func (c *Conn) Commit(ctx context.Context, b *Batch) error {
	if len(b.messages) == 0 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	first := c.sequence + 1
	c.sequence += uint32(len(b.messages)) + 1
	if err := nlmsg.Send(c.raw, b.seal(first)); err != nil {
		return fmt.Errorf("send nf_tables batch of %d bytes: %w", b.Size(), err)
	}
	// Read until the acknowledgement of the last operation. A refusal of the batch as such comes
	// under the frame's own number: before that acknowledgement when the commit failed, and alone
	// when nothing was looked at.
	var errs []error
	for done := false; !done; {
		n, err := nlmsg.Receive(c.raw, c.buf)
		if err != nil {
			return fmt.Errorf("receive nf_tables verdict: %w", err)
		}
		for m := range nlmsg.Messages(c.buf[:n]) {
			i := int(int32(m.Seq - first))
			if m.Type != unix.NLMSG_ERROR || i < 0 || i > len(b.messages) {
				continue // of an earlier batch
			}
			op := Op{Verb: "commit"}
			if i > 0 {
				op = b.messages[i-1].op
			}
			if e, _ := m.Errno(); e != 0 {
				errs = append(errs, &Error{Op: op, Errno: e, Detail: m.Detail()})
			}
			done = done || i == 0 || i == len(b.messages)
		}
	}
	return errors.Join(errs...)
}

// seal numbers the messages from sequence on, asks for one acknowledgement, of
// the last one, and closes the batch. The frame's begin gets sequence itself.
func (b *Batch) seal(sequence uint32) []byte {
	nlmsg.SetSeq(b.buf, sequence)
	for i, m := range b.messages {
		nlmsg.SetSeq(b.buf[m.offset:], sequence+1+uint32(i))
	}
	nlmsg.AddFlags(b.buf[b.messages[len(b.messages)-1].offset:], unix.NLM_F_ACK)
	return appendMessage(b.buf, unix.NFNL_MSG_BATCH_END, unix.NLM_F_REQUEST, unix.NFNL_SUBSYS_NFTABLES)
}

// Error is the kernel's refusal of one operation. errors.Is matches its Errno.
type Error struct {
	Op     Op
	Errno  unix.Errno
	Detail string // the kernel's own words, if it had any
}

func (e *Error) Error() string {
	s := e.Op.Verb
	if e.Op.Object != "" {
		s += " " + e.Op.Object
	}
	if e.Detail != "" {
		return fmt.Sprintf("%s: %v (%s)", s, e.Errno, e.Detail)
	}
	return fmt.Sprintf("%s: %v", s, e.Errno)
}

func (e *Error) Unwrap() error { return e.Errno }
