package wire

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"

	"github.com/mdlayher/netlink"
	"github.com/sessiond/sessiond/internal/nlmsg"
	"golang.org/x/sys/unix"
)

const (
	sendBuffer = 16 << 20 // so that a mass cut is one transaction
	// MaxBatch is the largest Batch.Size that a Conn is sure to take where
	// the process may force socket buffers (CAP_NET_ADMIN in the initial
	// user namespace). See Conn.Limit.
	MaxBatch      = sendBuffer / 2
	receiveBuffer = 64 << 10 // the kernel fills at most 32 KiB of it in a dump
	dumpAttempts  = 20
)

// ErrInterrupted: other programs changed the list during every attempt to dump it.
var ErrInterrupted = errors.New("dump was interrupted by changes each time")

// Conn is a socket to nf_tables of one network namespace. Its methods may be
// called concurrently; they take turns.
type Conn struct {
	mu       sync.Mutex
	nl       *netlink.Conn
	raw      syscall.RawConn
	limit    int
	sequence uint32
	buf      []byte

	asked   int              // keys that Lookup asks in one send
	answers *nlmsg.Datagrams // of Lookup
}

// Dial opens a Conn in the namespace that netns is a descriptor of; 0 means
// the process's own. No thread of the caller changes namespace.
func Dial(netns int) (*Conn, error) {
	nl, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: netns})
	if err != nil {
		return nil, fmt.Errorf("open nf_tables socket: %w", err)
	}
	c := &Conn{nl: nl, buf: make([]byte, receiveBuffer), answers: nlmsg.NewDatagrams(answersRead, answerRoom)}
	if err := c.setUp(); err != nil {
		return nil, errors.Join(err, nl.Close())
	}
	return c, nil
}

func (c *Conn) setUp() error {
	for _, o := range []netlink.ConnOption{netlink.ExtendedAcknowledge, netlink.CapAcknowledge} {
		if err := c.nl.SetOption(o, true); err != nil {
			return fmt.Errorf("set nf_tables socket option: %w", err)
		}
	}
	if err := c.nl.SetWriteBuffer(sendBuffer); err != nil {
		return fmt.Errorf("set nf_tables send buffer: %w", err)
	}
	size, err := c.nl.WriteBuffer()
	if err != nil {
		return fmt.Errorf("read nf_tables send buffer: %w", err)
	}
	c.limit = min(MaxBatch, size/2)
	if err := c.nl.SetReadBuffer(lookupBuffer); err != nil {
		return fmt.Errorf("set nf_tables receive buffer: %w", err)
	}
	if size, err = c.nl.ReadBuffer(); err != nil {
		return fmt.Errorf("read nf_tables receive buffer: %w", err)
	}
	c.asked = min(maxAsked, max(minAsked, size/answerBytes))
	c.raw, err = c.nl.SyscallConn()
	return err
}

// Close closes the socket.
func (c *Conn) Close() error { return c.nl.Close() }

// Requests and dumps.

// Get sends one request outside of a batch and yields the attributes of each answer. The bytes
// are valid only until yield returns.
func (c *Conn) Get(ctx context.Context, cmd Command, body func(dst []byte) []byte, yield func(attrs []byte)) error {
	return c.request(ctx, cmd, unix.NLM_F_ACK, body, all(yield))
}

// Dump reads a list, such as the elements of a set, and yields the attributes
// of each answer. When others change the list meanwhile it begins again, after
// a call of restart. The bytes are valid only until yield returns.
func (c *Conn) Dump(ctx context.Context, cmd Command, body func(dst []byte) []byte, restart func(), yield func(attrs []byte)) error {
	for range dumpAttempts {
		restart()
		err := c.request(ctx, cmd, unix.NLM_F_DUMP, body, all(yield))
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
	return ErrInterrupted
}

// AnyFamily is the body of a request for the tables of all families.
func AnyFamily(dst []byte) []byte { return Family(unix.NFPROTO_UNSPEC)(dst) }

// Family returns the body of a request for the tables of one family, NFPROTO_*.
func Family(number byte) func(dst []byte) []byte {
	return func(dst []byte) []byte {
		dst[nlmsg.HeaderLen] = number
		return dst
	}
}

// DumpWhile is Dump, without beginning again, until yield returns false. It returns
// whether the list came whole, as it was at one time. If yield returned false, the rest
// of the answers is still in c, which can only be closed.
func (c *Conn) DumpWhile(ctx context.Context, cmd Command, body func(dst []byte) []byte, yield func(attrs []byte) bool) (whole bool, err error) {
	more := true
	err = c.request(ctx, cmd, unix.NLM_F_DUMP, body, func(attrs []byte) bool {
		more = yield(attrs)
		return more
	})
	if errors.Is(err, unix.EINTR) {
		return false, nil
	}
	return more && err == nil, err
}

func (c *Conn) request(ctx context.Context, cmd Command, flags uint16, body func([]byte) []byte, yield func([]byte) bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	c.sequence++
	msg := nlmsg.End(body(appendMessage(nil, messageType(cmd), unix.NLM_F_REQUEST|flags, 0)), 0)
	nlmsg.SetSeq(msg, c.sequence)
	if err := nlmsg.Send(c.raw, msg); err != nil {
		return fmt.Errorf("send nf_tables request: %w", err)
	}
	return c.answersLocked(yield)
}

// all is yield for a caller that wants every answer.
func all(yield func([]byte)) func([]byte) bool {
	return func(attrs []byte) bool {
		yield(attrs)
		return true
	}
}

// answersLocked reads the answers to the last request up to their end, or until yield returns
// false. After an interruption it reads and yields on, so that nothing stays in the socket.
func (c *Conn) answersLocked(yield func([]byte) bool) error {
	var result error
	for done := false; !done; {
		n, err := nlmsg.Receive(c.raw, c.buf)
		if err != nil {
			return fmt.Errorf("receive nf_tables answer: %w", err)
		}
		for m := range nlmsg.Messages(c.buf[:n]) {
			if m.Seq != c.sequence {
				continue
			}
			if m.Flags&unix.NLM_F_DUMP_INTR != 0 {
				result = unix.EINTR
			}
			switch {
			case m.Type == unix.NLMSG_DONE, m.Type == unix.NLMSG_ERROR:
				done = true
				if e, _ := m.Errno(); e != 0 && result == nil {
					result = e
				}
			case len(m.Payload) >= nlmsg.FamilyLen && !yield(m.Payload[nlmsg.FamilyLen:]):
				done = true
			}
			if done {
				break
			}
		}
	}
	return result
}

// Attributes of linux/netfilter/nf_tables.h that golang.org/x/sys/unix lacks.
const (
	AttrTableUserdata = 6  // NFTA_TABLE_USERDATA
	AttrChainUserdata = 12 // NFTA_CHAIN_USERDATA
	AttrObjectHandle  = 6  // NFTA_OBJ_HANDLE
	AttrTableHandle   = 4  // NFTA_TABLE_HANDLE
	AttrSetHandle     = 16 // NFTA_SET_HANDLE
	AttrSetCount      = 20 // NFTA_SET_COUNT, elements in the set; newer kernels only
)
