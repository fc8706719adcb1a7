package nftnat

import (
	"context"
	"encoding/binary"

	"github.com/sessiond/sessiond/internal/nftnat/wire"
	"golang.org/x/sys/unix"
)

// eventsNeeded are the bits of what must be told for the index of sessions to be
// complete: the kernel's IPCT_NEW and IPCT_RELATED, which say that an entry began.
const eventsNeeded = 1<<0 | 1<<1

// readQuiet finds out whether a rule of anybody makes conntrack leave out what the index
// of sessions lives from: `ct event set` of nftables, or the target CT of iptables-nft
// with --ctevents. While there is one, the index proves nothing.
func (k *Kernel) readQuiet(ctx context.Context) error {
	quiet := ""
	err := k.conn.Dump(ctx, wire.GetRule, wire.AnyFamily, func() { quiet = "" }, func(attrs []byte) {
		if quiet == "" && masksEvents(attrs) {
			quiet = wire.String(wire.Attr(attrs, unix.NFTA_RULE_TABLE))
		}
	})
	if err == nil {
		k.setQuiet(quiet)
	}
	return err
}

// setQuiet takes the table whose rule leaves events out; "" for none.
func (k *Kernel) setQuiet(table string) {
	if k.quiet == table {
		return
	}
	k.quiet = table
	k.flows.SetQuiet(table != "")
	if table != "" {
		k.log.Warn("a rule makes conntrack leave events out (ct event set, or CT --ctevents): sessions are counted by audits alone, and removals and drains proved by table passes; let the rule tell new and related, or take it out",
			"table", table)
		return
	}
	k.log.Info("no rule makes conntrack leave events out any more")
}

// masksEvents reports whether a rule leaves out events that are needed.
func masksEvents(rule []byte) bool {
	loaded := map[uint32]uint32{} // immediate values, by register
	for _, e := range wire.Attrs(wire.Attr(rule, unix.NFTA_RULE_EXPRESSIONS)) {
		data := wire.Attr(e, unix.NFTA_EXPR_DATA)
		switch wire.String(wire.Attr(e, unix.NFTA_EXPR_NAME)) {
		case "immediate":
			value := wire.Attr(wire.Attr(data, unix.NFTA_IMMEDIATE_DATA), unix.NFTA_DATA_VALUE)
			if len(value) == 4 {
				loaded[wire.Uint32(wire.Attr(data, unix.NFTA_IMMEDIATE_DREG))] = binary.NativeEndian.Uint32(value)
			}
		case "ct":
			if from := wire.Attr(data, unix.NFTA_CT_SREG); from != nil &&
				wire.Uint32(wire.Attr(data, unix.NFTA_CT_KEY)) == unix.NFT_CT_EVENTMASK &&
				loaded[wire.Uint32(from)]&eventsNeeded != eventsNeeded {
				return true
			}
		case "target":
			if wire.String(wire.Attr(data, unix.NFTA_TARGET_NAME)) == "CT" && xtMasksEvents(wire.Attr(data, unix.NFTA_TARGET_INFO)) {
				return true
			}
		}
	}
	return false
}

// xtMasksEvents reads struct xt_ct_target_info: two numbers of 16 bits, and then the
// events, which are 0 where the rule is not about them.
func xtMasksEvents(info []byte) bool {
	const at = 4
	if len(info) < at+4 {
		return false
	}
	events := binary.NativeEndian.Uint32(info[at:])
	return events != 0 && events&eventsNeeded != eventsNeeded
}
