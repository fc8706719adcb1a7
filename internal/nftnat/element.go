package nftnat

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables/expr"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nlmsg"
	"golang.org/x/sys/unix"
)

// address is an IPv4 address in the kernel's form.
type address [4]byte

func (a address) addr() netip.Addr { return netip.AddrFrom4(a) }

// number returns a number in the order of addresses.
func (a address) number() uint32 { return binary.BigEndian.Uint32(a[:]) }

// block is a value of the block map. The zero block is none.
type block struct {
	outside     address
	first, last uint16
}

// cell is the value of one inside address in both maps.
type cell struct {
	gate nat.Gate
	block
}

// foreign is the gate of an element with a verdict that is not ours. It never counts as open,
// and differs from GateClosed so that it is deleted.
const foreign nat.Gate = 255

// ours returns the cell with a foreign verdict taken for a closed gate.
func (c cell) ours() cell {
	if c.gate == foreign {
		c.gate = nat.GateClosed
	}
	return c
}

func (c cell) entry(inside address) nat.Entry {
	e := nat.Entry{Inside: inside.addr(), Gate: c.ours().gate}
	if c.block != (block{}) {
		e.Block = nat.Block{Outside: c.outside.addr(), First: nat.Port(c.first), Last: nat.Port(c.last)}
	}
	return e
}

// appendGate appends an element of the gate: open is return, draining leads to
// the chain that refuses new sessions.
func appendGate(dst []byte, inside address, g nat.Gate) []byte {
	dst = appendKey(dst, inside[:])
	data := len(dst)
	dst = nlmsg.BeginNested(dst, unix.NFTA_SET_ELEM_DATA)
	verdict := len(dst)
	dst = nlmsg.BeginNested(dst, unix.NFTA_DATA_VERDICT)
	if g == nat.GateDraining {
		dst = nlmsg.AppendUint32(dst, unix.NFTA_VERDICT_CODE, verdictCode(expr.VerdictGoto))
		dst = nlmsg.AppendString(dst, unix.NFTA_VERDICT_CHAIN, chainDraining)
	} else {
		dst = nlmsg.AppendUint32(dst, unix.NFTA_VERDICT_CODE, verdictCode(expr.VerdictReturn))
	}
	return nlmsg.EndNested(nlmsg.EndNested(dst, verdict), data)
}

func verdictCode(k expr.VerdictKind) uint32 { return uint32(int32(k)) }

// parseGate reads an element of the gate map.
func parseGate(attrs []byte) (inside address, g nat.Gate, ok bool) {
	key := parseKey(attrs)
	if len(key) != addressLen {
		return address{}, nat.GateClosed, false
	}
	g = foreign
	verdict := nlmsg.Attr(nlmsg.Attr(attrs, unix.NFTA_SET_ELEM_DATA), unix.NFTA_DATA_VERDICT)
	switch nlmsg.Uint32(nlmsg.Attr(verdict, unix.NFTA_VERDICT_CODE)) {
	case verdictCode(expr.VerdictReturn):
		g = nat.GateOpen
	case verdictCode(expr.VerdictGoto):
		if nlmsg.String(nlmsg.Attr(verdict, unix.NFTA_VERDICT_CHAIN)) == chainDraining {
			g = nat.GateDraining
		}
	}
	return address(key), g, true
}

// appendBlock appends an element of the block map: a range of concatenations,
// ports padded to 32 bits.
func appendBlock(dst []byte, inside address, b block) []byte {
	dst = appendKey(dst, inside[:])
	data := len(dst)
	dst = nlmsg.BeginNested(dst, unix.NFTA_SET_ELEM_DATA)
	var value [blockLen]byte
	copy(value[0:], b.outside[:])
	binary.BigEndian.PutUint16(value[4:], b.first)
	copy(value[8:], b.outside[:])
	binary.BigEndian.PutUint16(value[12:], b.last)
	dst = nlmsg.AppendAttr(dst, unix.NFTA_DATA_VALUE, value[:])
	return nlmsg.EndNested(dst, data)
}

func parseBlock(attrs []byte) (inside address, b block, ok bool) {
	key := parseKey(attrs)
	value := nlmsg.Attr(nlmsg.Attr(attrs, unix.NFTA_SET_ELEM_DATA), unix.NFTA_DATA_VALUE)
	if len(key) != addressLen || len(value) != blockLen {
		return address{}, block{}, false
	}
	b = block{
		outside: address(value[:addressLen]),
		first:   binary.BigEndian.Uint16(value[4:]),
		last:    binary.BigEndian.Uint16(value[12:]),
	}
	return address(key), b, true
}
