// Package barrier keeps packets with an inside source from leaving by an outside interface,
// also while nftables has no table.
package barrier

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/addrrange"
	"github.com/sessiond/sessiond/internal/kmodule"
	"github.com/sessiond/sessiond/internal/netns"
)

// Place of the barrier's filter on an interface: `tc filter show dev DEV egress` lists it as
// bpf of preference 93 and handle 0x93. No other program is known to use them.
const (
	preference = 93
	handle     = 0x93
)

// Numbers of linux/pkt_sched.h, linux/pkt_cls.h and linux/rtnetlink.h that
// golang.org/x/sys/unix lacks.
const (
	tcClsact   = 0xfffffff1 // TC_H_CLSACT, the parent of the qdisc
	tcHandle   = 0xffff0000 // of the qdisc
	tcIngress  = 0xfffffff2 // TC_H_CLSACT with TC_H_MIN_INGRESS
	tcEgress   = 0xfffffff3 // TC_H_CLSACT with TC_H_MIN_EGRESS
	tcaKind    = 1
	tcaOptions = 2
	tcaStats   = 7 // TCA_STATS2
	tcaQueue   = 3 // TCA_STATS_QUEUE
	tcaChain   = 11

	bpfOpsLen       = 4 // TCA_BPF_OPS_LEN
	bpfOps          = 5 // TCA_BPF_OPS
	bpfFlags        = 8 // TCA_BPF_FLAGS
	bpfDirectAction = 1 // TCA_BPF_FLAG_ACT_DIRECT: the program's result is the action

	actDrop     = 2              // TC_ACT_SHOT
	actContinue = math.MaxUint32 // TC_ACT_UNSPEC: the next filter decides
)

// A Barrier is a filter behind all of nftables, which no nftables command touches. It is a
// classic BPF program at the egress of each outside interface, which needs CAP_NET_ADMIN
// and no more, and the kernel's cls_bpf and sch_ingress. One goroutine uses it at a time,
// but for Watch, Stands and Dropped.
type Barrier struct {
	conn       *netlink.Conn
	notices    *netlink.Conn
	interfaces []string
	log        *slog.Logger

	program []byte           // wanted
	told    map[string]error // the error last logged, by interface
	stands  atomic.Bool      // on every existing outside interface
}

// Open opens the sockets of the barrier, and changes nothing in the kernel.
func Open(ns netns.Namespace, interfaces []string, log *slog.Logger) (*Barrier, error) {
	b := &Barrier{interfaces: interfaces, log: log, told: map[string]error{}}
	config := &netlink.Config{NetNS: ns.FD()}
	var err error
	if b.conn, err = netlink.Dial(unix.NETLINK_ROUTE, config); err != nil {
		return nil, fmt.Errorf("open traffic control socket: %w", err)
	}
	if b.notices, err = netlink.Dial(unix.NETLINK_ROUTE, config); err != nil {
		return nil, errors.Join(fmt.Errorf("open link notice socket: %w", err), b.conn.Close())
	}
	for _, group := range []uint32{unix.RTNLGRP_LINK, unix.RTNLGRP_TC} {
		if err := b.notices.JoinGroup(group); err != nil {
			return nil, errors.Join(fmt.Errorf("listen for link notices: %w", err), b.Close())
		}
	}
	return b, nil
}

// Raise installs a barrier for the prefixes on each interface that has none, and changes
// nothing else in the kernel. An existing barrier may cover more prefixes, and is kept. The
// error names the interfaces without a barrier.
func Raise(ns netns.Namespace, interfaces []string, prefixes []netip.Prefix, log *slog.Logger) (err error) {
	b, err := Open(ns, interfaces, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	if b.program, err = compile(addrrange.Of(prefixes), nil); err != nil {
		return err
	}
	var without []error
	for _, name := range interfaces {
		if err := b.raiseOn(name); err != nil {
			without = append(without, fmt.Errorf("no barrier on interface %s: %w", name, err))
		}
	}
	return errors.Join(without...)
}

// Without returns those of the interfaces that exist and have no barrier, of any prefixes, and
// changes nothing in the kernel.
func Without(ns netns.Namespace, interfaces []string, log *slog.Logger) (names []string, err error) {
	b, err := Open(ns, interfaces, log)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	for _, name := range interfaces {
		index, err := b.index(name)
		if errors.Is(err, errNoInterface) {
			continue
		}
		if err != nil {
			return nil, err
		}
		installed, err := b.installed(index)
		if err != nil {
			return nil, err
		}
		if installed == nil {
			names = append(names, name)
		}
	}
	return names, nil
}

func (b *Barrier) raiseOn(name string) error {
	index, err := b.index(name)
	if err != nil {
		return err
	}
	if installed, err := b.installed(index); err != nil || installed != nil {
		return err
	}
	return b.put(index)
}

// Close ends the connections to the kernel. The barrier stays (I9).
func (b *Barrier) Close() error { return errors.Join(b.conn.Close(), b.notices.Close()) }

// Stands reports whether there is a barrier on every outside interface that there is.
func (b *Barrier) Stands() bool { return b.stands.Load() }

// Dropped returns the packets that the filters of each outside interface dropped, by the
// interface's name: the kernel counts those of the barrier and of others in one count of 32
// bits, which begins anew with the qdisc. An interface without one is left out.
func (b *Barrier) Dropped() (map[string]uint32, error) {
	qdiscs, err := b.ask(unix.RTM_GETQDISC, netlink.Dump, tcMessage{})
	if err != nil {
		return nil, fmt.Errorf("list qdiscs: %w", err)
	}
	byIndex := map[uint32]uint32{}
	for _, q := range qdiscs {
		if at, kind := parseTC(q); kind == "clsact" {
			byIndex[at.index] = dropsOf(q)
		}
	}
	dropped := map[string]uint32{}
	for _, name := range b.interfaces {
		index, err := b.index(name)
		if errors.Is(err, errNoInterface) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n, ok := byIndex[index]; ok {
			dropped[name] = n
		}
	}
	return dropped, nil
}

// PassMark is the bit of a packet's mark with which the table lets a packet with an inside
// source pass the barrier, to the destinations of sessions without NAT. Only the last chain of
// the table sets it, so nothing passes while the table is away.
const PassMark = 1 << 29

// Set makes the barrier that of the prefixes, on every outside interface there is. Packets with
// PassMark pass to some destinations.
func (b *Barrier) Set(prefixes, passing []netip.Prefix) error {
	program, err := compile(addrrange.Of(prefixes), addrrange.Of(passing))
	if err != nil {
		return err
	}
	b.program = program
	b.Restore()
	return nil
}

// Restore installs the barrier where it is missing or differs: on a new interface, or where
// another program deleted it. A failure is logged once: NAT goes on, and the table drops
// the packets too.
func (b *Barrier) Restore() {
	stands := true
	for _, name := range b.interfaces {
		err := b.restoreOn(name)
		if errors.Is(err, errNoInterface) {
			err = nil // it may come later
		}
		if was, ok := b.told[name]; err != nil && (!ok || was == nil || was.Error() != err.Error()) {
			b.log.Warn("outside interface has no barrier: while nftables is flushed or reloaded, packets may leave untranslated",
				"interface", name, "error", err)
		}
		b.told[name] = err
		stands = stands && err == nil
	}
	b.stands.Store(stands)
}

var errNoInterface = errors.New("no such interface")

func (b *Barrier) restoreOn(name string) error {
	index, err := b.index(name)
	if err != nil {
		return err
	}
	installed, err := b.installed(index)
	if err != nil {
		return err
	}
	if !slices.Equal(installed, b.program) {
		if err := b.put(index); err != nil {
			return err
		}
	}
	return b.comesFirst(index)
}

// comesFirst returns an error if a filter of others comes before the barrier: the kernel asks
// no further filter about a packet that one lets pass ("ok"). Filters of other chains are
// reached only through one of chain 0.
func (b *Barrier) comesFirst(index uint32) error {
	filters, err := b.ask(unix.RTM_GETTFILTER, netlink.Dump, tcMessage{index: index, parent: tcEgress})
	if err != nil {
		return fmt.Errorf("list filters: %w", err)
	}
	for _, f := range filters {
		at, kind := parseTC(f)
		rank := at.info >> 16
		beside := rank == preference && at.handle != 0 && at.handle != handle // of one preference the newest is first
		if (rank < preference || beside) && chainOf(f) == 0 {
			return fmt.Errorf("a filter of others, %s of preference %d, comes before it, and what that one lets pass is not kept back: give it a preference above %d",
				kind, rank, preference)
		}
	}
	return nil
}

// put installs the program on an interface, in place of an existing one of ours.
func (b *Barrier) put(index uint32) error {
	if err := b.placeOn(index); err != nil {
		return err
	}
	err := b.execute(unix.RTM_NEWTFILTER, netlink.Create, b.filter(index), "bpf", func(e *netlink.AttributeEncoder) error {
		e.Uint16(bpfOpsLen, uint16(len(b.program)/bpfInstruction))
		e.Bytes(bpfOps, b.program)
		e.Uint32(bpfFlags, bpfDirectAction)
		return nil
	})
	if kmodule.Lacks(err) {
		return kmodule.Missing("cls_bpf", fmt.Errorf("add filter to qdisc clsact: %w", err))
	}
	if err != nil {
		return fmt.Errorf("add filter to qdisc clsact: %w", err)
	}
	return nil
}

// placeOn makes the qdisc clsact, which holds the filters of the egress. It shares its place
// with the older qdisc ingress, which, if present, would take the filters for the egress as
// filters for the ingress.
func (b *Barrier) placeOn(index uint32) error {
	at := tcMessage{index: index, handle: tcHandle, parent: tcClsact}
	err := b.execute(unix.RTM_NEWQDISC, netlink.Create|netlink.Excl, at, "clsact", nil)
	if err == nil {
		return nil
	}
	if kmodule.Lacks(err) {
		return kmodule.Missing("sch_ingress", fmt.Errorf("add qdisc clsact: %w", err))
	}
	if !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add qdisc clsact: %w", err)
	}
	qdiscs, err := b.ask(unix.RTM_GETQDISC, netlink.Dump, tcMessage{})
	if err != nil {
		return fmt.Errorf("list qdiscs: %w", err)
	}
	for _, q := range qdiscs {
		if at, kind := parseTC(q); at.index == index && at.handle == tcHandle && kind != "clsact" {
			return fmt.Errorf("qdisc %s has the place of clsact", kind)
		}
	}
	return nil
}

func (b *Barrier) filter(index uint32) tcMessage {
	all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
	return tcMessage{index: index, handle: handle, parent: tcEgress, info: preference<<16 | uint32(all)}
}

// installed reads the program on an interface, nil for none.
func (b *Barrier) installed(index uint32) ([]byte, error) {
	replies, err := b.ask(unix.RTM_GETTFILTER, 0, b.filter(index))
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil // no filter, or no qdisc
	}
	if err != nil {
		return nil, fmt.Errorf("read filter: %w", err)
	}
	for _, m := range replies {
		if program := programOf(m); program != nil {
			return program, nil
		}
	}
	return nil, nil
}

// Retire removes the barrier from all interfaces but those named, because an earlier start
// may have served others, and removes the qdisc too if it has no other filter.
func (b *Barrier) Retire(keep ...string) error {
	qdiscs, err := b.ask(unix.RTM_GETQDISC, netlink.Dump, tcMessage{})
	if err != nil {
		return fmt.Errorf("list qdiscs: %w", err)
	}
	kept := map[uint32]bool{}
	for _, name := range keep {
		if index, err := b.index(name); err == nil {
			kept[index] = true
		}
	}
	for _, q := range qdiscs {
		at, kind := parseTC(q)
		if kind != "clsact" || kept[at.index] {
			continue
		}
		if err := b.retireFrom(at.index); err != nil {
			return err
		}
	}
	return nil
}

func (b *Barrier) retireFrom(index uint32) error {
	if program, err := b.installed(index); err != nil || program == nil {
		return err
	}
	if err := b.execute(unix.RTM_DELTFILTER, 0, b.filter(index), "bpf", nil); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete filter: %w", err)
	}
	for _, parent := range []uint32{tcIngress, tcEgress} {
		filters, err := b.ask(unix.RTM_GETTFILTER, netlink.Dump, tcMessage{index: index, parent: parent})
		if err != nil || len(filters) > 0 {
			return err
		}
	}
	err := b.execute(unix.RTM_DELQDISC, 0, tcMessage{index: index, handle: tcHandle, parent: tcClsact}, "clsact", nil)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	return err
}

// Watch calls restore as soon as an outside interface comes or is renamed, or others
// change a filter. It returns when ctx ends.
func (b *Barrier) Watch(ctx context.Context, restore func() error) error {
	stop := context.AfterFunc(ctx, func() { _ = b.notices.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		messages, err := b.notices.Receive()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, unix.ENOBUFS): // some were lost: restore all the same
		case err != nil:
			return fmt.Errorf("receive link notices: %w", err)
		case !slices.ContainsFunc(messages, b.concerns):
			continue
		}
		if err := restore(); err != nil {
			return err
		}
	}
}

// concerns reports whether a notice may be about the barrier.
func (b *Barrier) concerns(m netlink.Message) bool {
	if m.Header.Type != unix.RTM_NEWLINK {
		return m.Header.Type != unix.RTM_DELLINK
	}
	name, _ := linkName(m)
	return slices.Contains(b.interfaces, name)
}

const bpfInstruction = 8 // struct sock_filter

// maxRanges keeps the program below the kernel's limit of 4096 instructions.
const maxRanges = 1000

// compile returns a program that drops IPv4 packets with a source in one of the ranges, which
// are in order, unless they are marked and have a destination in one of passing. It finds the
// network header behind a link header of any length.
func compile(ranges, passing addrrange.Set) ([]byte, error) {
	const networkHeader = 1<<32 - 0x100000 // SKF_NET_OFF
	if n := len(ranges) + len(passing); n > maxRanges {
		return nil, fmt.Errorf("barrier: %d separate ranges of inside prefixes and destinations without NAT, at most %d can be guarded", n, maxRanges)
	}
	load := func(offset uint32) bpf.Instruction {
		return bpf.RawInstruction{Op: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: networkHeader + offset}
	}
	code := append([]bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtProto},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.ETH_P_IP, SkipTrue: 1},
		bpf.RetConstant{Val: actContinue},
		load(12),
	}, within(ranges, len(passing) == 0)...)
	if len(passing) > 0 {
		code = append(code,
			bpf.LoadExtension{Num: bpf.ExtMark},
			bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: PassMark, SkipTrue: 1},
			bpf.RetConstant{Val: actDrop},
			load(16),
		)
		code = append(code, passWithin(passing)...)
	}
	raw, err := bpf.Assemble(code)
	if err != nil {
		return nil, err
	}
	var program []byte
	for _, i := range raw {
		program = binary.NativeEndian.AppendUint16(program, i.Op)
		program = append(program, i.Jt, i.Jf)
		program = binary.NativeEndian.AppendUint32(program, i.K)
	}
	return program, nil
}

// within returns the instructions that decide on the loaded address: one outside of all ranges
// passes, and one within is dropped, or decided on by the instructions that follow. The ranges
// are in order, so an address below one of them is in none of the later ones.
func within(ranges addrrange.Set, drop bool) []bpf.Instruction {
	var code []bpf.Instruction
	for i, r := range ranges {
		var found bpf.Instruction = bpf.RetConstant{Val: actDrop}
		if !drop {
			found = bpf.Jump{Skip: uint32(4*(len(ranges)-1-i) + 2)}
		}
		code = append(code,
			bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: r.Last, SkipTrue: 3},
			bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: r.First, SkipFalse: 1},
			found,
			bpf.RetConstant{Val: actContinue},
		)
	}
	return append(code, bpf.RetConstant{Val: actContinue})
}

// passWithin returns the instructions that let the loaded address pass if it is within one of
// the ranges, which are in order, and drop it else.
func passWithin(ranges addrrange.Set) []bpf.Instruction {
	var code []bpf.Instruction
	for _, r := range ranges {
		code = append(code,
			bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: r.Last, SkipTrue: 3},
			bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: r.First, SkipFalse: 1},
			bpf.RetConstant{Val: actContinue},
			bpf.RetConstant{Val: actDrop},
		)
	}
	return append(code, bpf.RetConstant{Val: actDrop})
}
