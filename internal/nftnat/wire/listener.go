package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/nlmsg"
)

// noticeBuffer has room for the notices of some 30,000 elements that others change.
const noticeBuffer = 16 << 20

// A Notice is one change of a transaction of others.
type Notice struct {
	Command Command
	Family  uint8
	Attrs   []byte // valid only until the next one
}

// Table returns the name of the notice's table. It is the first attribute of every command
// except that of a new generation.
func (n Notice) Table() string { return nlmsg.String(nlmsg.Attr(n.Attrs, unix.NFTA_TABLE_NAME)) }

// A Listener receives the notices of others' transactions. The kernel queues the notices of a
// transaction before the committing call returns, and drops those of one connection for this
// Listener.
//
// While any socket listens, a transaction costs the kernel some 8 kB of memory for each
// element until it is committed, and twice the time: see Deafen.
type Listener struct {
	nl   *netlink.Conn
	raw  syscall.RawConn
	lost atomic.Bool
	buf  []byte
}

// Listen opens a Listener in the namespace that netns is a descriptor of; 0 means the
// process's own. It does not receive the notices of own's commits.
func Listen(netns int, own *Conn) (*Listener, error) {
	nl, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: netns})
	if err != nil {
		return nil, fmt.Errorf("open nf_tables notice socket: %w", err)
	}
	l := &Listener{nl: nl, buf: make([]byte, receiveBuffer)}
	if err := l.setUp(own.nl.PID()); err != nil {
		return nil, errors.Join(err, nl.Close())
	}
	return l, nil
}

func (l *Listener) setUp(own uint32) (err error) {
	if err := l.nl.SetReadBuffer(noticeBuffer); err != nil {
		return fmt.Errorf("set nf_tables notice buffer: %w", err)
	}
	filter, err := bpf.Assemble(notBy(own))
	if err != nil {
		return err
	}
	if err := l.nl.SetBPF(filter); err != nil {
		return fmt.Errorf("filter nf_tables notices: %w", err)
	}
	if l.raw, err = l.nl.SyscallConn(); err != nil {
		return err
	}
	return l.Hear()
}

// notBy lets notices of others pass: all messages of a datagram are of one transaction, and
// nlmsghdr has its sender's port in the host's byte order.
func notBy(port uint32) []bpf.Instruction {
	var probe [2]byte
	binary.NativeEndian.PutUint16(probe[:], 1)
	if probe[0] == 1 { // the filter loads in network byte order
		port = bits.ReverseBytes32(port)
	}
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: 12, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: port, SkipFalse: 1},
		bpf.RetConstant{Val: 0},
		bpf.RetConstant{Val: 1 << 30},
	}
}

// Hear begins to listen, as after Listen.
func (l *Listener) Hear() error { return l.nl.JoinGroup(unix.NFNLGRP_NFTABLES) }

// Deafen stops listening until Hear: for a large transaction of the caller's own. Changes of
// others meanwhile are not announced, and the gap is not either.
func (l *Listener) Deafen() error { return l.nl.LeaveGroup(unix.NFNLGRP_NFTABLES) }

// Drain yields the queued notices, and reports whether some were lost.
func (l *Listener) Drain(yield func(Notice)) (lost bool, err error) {
	for {
		n, err := l.receive(0)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return l.lost.Swap(false), nil
		case errors.Is(err, unix.ENOBUFS):
			l.lost.Store(true)
			continue
		case err != nil:
			return true, fmt.Errorf("receive nf_tables notices: %w", err)
		}
		for m := range nlmsg.Messages(l.buf[:n]) {
			if m.Type>>8 == unix.NFNL_SUBSYS_NFTABLES && len(m.Payload) >= nlmsg.FamilyLen {
				yield(Notice{Command: Command(m.Type), Family: m.Payload[0], Attrs: m.Payload[nlmsg.FamilyLen:]})
			}
		}
	}
}

func (l *Listener) receive(flags int) (n int, result error) {
	err := l.raw.Control(func(fd uintptr) {
		for {
			n, _, result = unix.Recvfrom(int(fd), l.buf, flags|unix.MSG_DONTWAIT)
			if !errors.Is(result, unix.EINTR) {
				return
			}
		}
	})
	return n, errors.Join(err, result)
}

// Wait returns when there is something to Drain, or when ctx ends, with its error, or
// the Listener is closed. One goroutine may wait while another drains.
func (l *Listener) Wait(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = l.nl.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	err := l.raw.Read(func(fd uintptr) bool {
		var one [1]byte
		_, _, err := unix.Recvfrom(int(fd), one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		if errors.Is(err, unix.ENOBUFS) { // the kernel reports it once
			l.lost.Store(true)
		}
		return !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR)
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// Close closes the socket.
func (l *Listener) Close() error { return l.nl.Close() }
