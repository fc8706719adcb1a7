package nftnat

import (
	"encoding/binary"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Loads of one packet property into register 1.
var (
	loadInputName  = &expr.Meta{Key: expr.MetaKeyIIFNAME, Register: unix.NFT_REG_1}
	loadOutputName = &expr.Meta{Key: expr.MetaKeyOIFNAME, Register: unix.NFT_REG_1}
	loadProtocol   = &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: unix.NFT_REG_1}
	loadStatus     = &expr.Ct{Key: expr.CtKeySTATUS, Register: unix.NFT_REG_1}
	loadDirection  = &expr.Ct{Key: expr.CtKeyDIRECTION, Register: unix.NFT_REG_1}
	loadSource     = loadAddress(12)
	loadTarget     = loadAddress(16)
)

// loadAddress loads an address from an offset in the IPv4 header (RFC 791
// section 3.1).
func loadAddress(offset uint32) *expr.Payload {
	return &expr.Payload{
		DestRegister: unix.NFT_REG_1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4,
	}
}

// in matches a packet whose loaded property is in a set.
func in(load expr.Any, set string) []expr.Any {
	return []expr.Any{load, &expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: set}}
}

// notIn matches a packet whose loaded property is not in a set.
func notIn(load expr.Any, set string) []expr.Any {
	return []expr.Any{load, &expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: set, Invert: true}}
}

// anySuffix at the end of an interface's name matches any ending.
const anySuffix = "*"

// nameBegins matches a packet whose loaded interface name begins with begin: a comparison of
// full length would match whole names only.
func nameBegins(load expr.Any, begin string) []expr.Any {
	return []expr.Any{
		load, &expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: []byte(begin)},
	}
}

// isReply matches a packet against the direction in which its conntrack entry began, and the
// ICMP errors about packets of the other direction. A packet without an entry, or an untracked
// one, is none.
func isReply() []expr.Any {
	const directionReply = 1 // IP_CT_DIR_REPLY
	return []expr.Any{
		loadDirection, &expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: []byte{directionReply}},
	}
}

// toMachine matches a packet that leaves by no interface.
func toMachine() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyOIF, Register: unix.NFT_REG_1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: make([]byte, 4)},
	}
}

// protocolIs matches one transport protocol.
func protocolIs(number uint8) []expr.Any {
	return []expr.Any{
		loadProtocol, &expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: []byte{number}},
	}
}

// statusHas matches a packet of a conntrack entry with one of the IPS_* bits.
func statusHas(bits uint32) []expr.Any {
	return []expr.Any{
		loadStatus,
		&expr.Bitwise{
			SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: 4,
			Mask: binary.NativeEndian.AppendUint32(nil, bits), Xor: make([]byte, 4),
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: unix.NFT_REG_1, Data: make([]byte, 4)},
	}
}

// verdictOf applies the verdict that a map has for the loaded property, and goes on with the
// next rule where the map has none.
func verdictOf(load expr.Any, verdicts string) []expr.Any {
	return []expr.Any{load, &expr.Lookup{
		SourceRegister: unix.NFT_REG_1, SetName: verdicts, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true,
	}}
}

// translateBy translates the source into the addresses and ports that a map has for it, and
// goes on with the next rule where the map has none. The value takes four 32-bit registers:
// address, port, last address, last port.
func translateBy(blocks string) []expr.Any {
	return []expr.Any{
		loadSource,
		&expr.Lookup{
			SourceRegister: unix.NFT_REG_1, SetName: blocks, DestRegister: unix.NFT_REG_1, IsDestRegSet: true,
		},
		&expr.NAT{
			Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4,
			RegAddrMin: unix.NFT_REG_1, RegProtoMin: unix.NFT_REG32_01,
			RegAddrMax: unix.NFT_REG32_02, RegProtoMax: unix.NFT_REG32_03,
		},
	}
}

func assign(policy string) expr.Any {
	return &expr.Objref{Type: unix.NFT_OBJECT_CT_TIMEOUT, Name: policy}
}

func goTo(chain string) expr.Any { return &expr.Verdict{Kind: expr.VerdictGoto, Chain: chain} }
func jump(chain string) expr.Any { return &expr.Verdict{Kind: expr.VerdictJump, Chain: chain} }
func leave() expr.Any            { return &expr.Verdict{Kind: expr.VerdictReturn} }

// countedDrop drops a packet, and counts it for the operator.
func countedDrop() []expr.Any {
	return []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}}
}
