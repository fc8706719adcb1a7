package nftnat

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables/expr"
	"github.com/sessiond/sessiond/internal/conntrack"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nftnat/barrier"
	"golang.org/x/sys/unix"
)

// Sessions without NAT pass the same gates, and are reaped, as all others. The chain no_nat
// decides on the flow's first packet, and on packets with an inside source that are about to
// leave. It reads the flow, not the packet: an ICMP error about a flow has the flow's way.
//
// Its rules mark the packets for the barrier, which lets through marked ones alone. While the
// table is away nothing marks, so that sessions without NAT stop with all others.

// noNATRules are the rules of the chain; none without sessions of the kind.
func noNATRules(list []nat.NoNAT) []rule {
	var rules []rule
	for _, n := range list {
		for _, inside := range n.Inside {
			match := slices.Concat(flowFrom(expr.CtKeySRC, inside), flowFrom(expr.CtKeyDST, n.Remote), flowOf(&n))
			rules = append(rules, rule{chainNoNAT, "no NAT", slices.Concat(match, markPassing(), []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}})})
		}
	}
	return rules
}

// guardRules let nothing with an inside source leave, but sessions without NAT. They stand behind
// everything else, so that nobody changes the mark before the barrier sees it. A table without
// such sessions has leavingRules in their place.
func guardRules(list []nat.NoNAT, insideLeaves []expr.Any) []rule {
	if len(list) == 0 {
		return nil
	}
	drop := countedDrop(nat.DropUntranslated, nat.DropOut)
	return []rule{
		{chainGuard, "", then(insideLeaves, goTo(chainUntranslated))},
		{chainUntranslated, "", []expr.Any{jump(chainNoNAT)}},
		{chainUntranslated, "untranslated", drop},
	}
}

// flowFrom matches the flow's original source or destination.
func flowFrom(key expr.CtKey, prefix netip.Prefix) []expr.Any {
	address := prefix.Masked().Addr().AsSlice()
	exprs := []expr.Any{&expr.Ct{Register: unix.NFT_REG_1, Key: key}}
	if prefix.Bits() < 32 {
		exprs = append(exprs, &expr.Bitwise{
			SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: addressLen,
			Mask: binary.BigEndian.AppendUint32(nil, ^uint32(0)<<(32-prefix.Bits())), Xor: make([]byte, addressLen),
		})
	}
	return append(exprs, &expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: address})
}

// flowOf matches the flow's protocol and ports.
func flowOf(n *nat.NoNAT) (exprs []expr.Any) {
	if n.Protocol != 0 {
		exprs = append(exprs, &expr.Ct{Register: unix.NFT_REG_1, Key: expr.CtKeyPROTOCOL},
			&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: []byte{n.Protocol}})
	}
	if n.AllPorts() {
		return exprs
	}
	return append(exprs, &expr.Ct{Register: unix.NFT_REG_1, Key: expr.CtKeyPROTODST},
		&expr.Cmp{Op: expr.CmpOpGte, Register: unix.NFT_REG_1, Data: binary.BigEndian.AppendUint16(nil, n.First)},
		&expr.Cmp{Op: expr.CmpOpLte, Register: unix.NFT_REG_1, Data: binary.BigEndian.AppendUint16(nil, n.Last)})
}

// markPassing sets the barrier's bit in the packet's mark, and keeps the others.
func markPassing() []expr.Any {
	keep := binary.NativeEndian.AppendUint32(nil, ^uint32(barrier.PassMark))
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: unix.NFT_REG_1},
		&expr.Bitwise{
			SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: 4,
			Mask: keep, Xor: binary.NativeEndian.AppendUint32(nil, barrier.PassMark),
		},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: unix.NFT_REG_1, SourceRegister: true},
	}
}

// SetNoNAT changes the sessions without NAT. Sessions that began before keep their translation;
// those without one to a destination that is no longer listed stop, and are deleted.
func (k *Kernel) SetNoNAT(ctx context.Context, list []nat.NoNAT) error {
	if err := checkNoNAT(list); err != nil {
		return err
	}
	if err := k.lock(ctx); err != nil {
		return err
	}
	defer k.unlock()
	if slices.EqualFunc(list, k.options.NoNAT, equalNoNAT) {
		return nil
	}
	o := k.options
	o.NoNAT = slices.Clone(list)
	if err := setBarrier(k.barrier, k.options.InsidePrefixes, slices.Concat(list, k.options.NoNAT)); err != nil {
		return err
	}
	if err := k.configure(ctx, o); err != nil {
		return err
	}
	k.noNAT.Store(&o.NoNAT)
	k.askSweep()
	return setBarrier(k.barrier, k.options.InsidePrefixes, list)
}

// setBarrier makes the barrier that of inside prefixes, with the destinations to which marked
// packets pass.
func setBarrier(b *barrier.Barrier, inside []netip.Prefix, list []nat.NoNAT) error {
	var passing []netip.Prefix
	for _, n := range list {
		passing = append(passing, n.Remote)
	}
	return b.Set(inside, passing)
}

func equalNoNAT(a, b nat.NoNAT) bool {
	return slices.Equal(a.Inside, b.Inside) && a.Remote == b.Remote && a.Protocol == b.Protocol && a.First == b.First && a.Last == b.Last
}

func checkNoNAT(list []nat.NoNAT) error {
	for _, n := range list {
		if !n.Remote.Addr().Is4() || n.First > n.Last || !slices.Contains([]uint8{0, unix.IPPROTO_ICMP, unix.IPPROTO_TCP, unix.IPPROTO_UDP}, n.Protocol) {
			return fmt.Errorf("nftnat: no NAT for %+v is impossible", n)
		}
		if err := CheckPrefixes(n.Inside, nil); err != nil {
			return err
		}
	}
	return nil
}

// keepsAddress reports whether an entry is of a session without NAT.
func keepsAddress(e conntrack.Entry, list []nat.NoNAT) bool {
	if e.Reply.Dst != e.Orig.Src {
		return false
	}
	return slices.ContainsFunc(list, func(n nat.NoNAT) bool {
		return n.Covers(e.Orig.Protocol, e.Orig.Src, netip.AddrPortFrom(e.Orig.Dst, e.Orig.DstPort))
	})
}
