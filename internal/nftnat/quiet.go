package nftnat

import (
	"context"
	"encoding/binary"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/conntrack"
	"github.com/sessiond/sessiond/internal/nftnat/wire"
	"github.com/sessiond/sessiond/internal/nlmsg"
)

// eventsNeeded are the bits of the events that a complete index of sessions needs: the
// kernel's IPCT_NEW and IPCT_RELATED, which say that an entry began.
const eventsNeeded = 1<<0 | 1<<1

// quietWatch looks for rules of any table that make conntrack leave out events that the index
// of sessions needs. While there is one, the index proves nothing.
//
// The notice of an added rule says whether it masks events. So all rules are read only when
// rules were deleted while one masked, or when changes of others are unknown.
type quietWatch struct {
	rereader
	flows *conntrack.Table

	mu    sync.Mutex
	table string // of the rule that masks; "" for none
}

// start reads all rules, or has them read later.
func (q *quietWatch) start(ctx context.Context) {
	table, err := q.read(ctx)
	if err == nil {
		q.set(table)
		return
	}
	q.log.Warn(unreadRules, "error", err)
	q.flows.SetQuiet(true) // until they are read
	q.ask()
}

// run checks, each time it is due, whether a rule masks events.
func (q *quietWatch) run(ctx context.Context) error {
	return q.reread(ctx, q.look, unreadRules)
}

const unreadRules = "rules of nftables cannot be read; it is tried again whether one masks conntrack events"

// hear processes the findings in notices: the table of a new rule that masks events,
// whether rules were deleted, and whether others may have made any other change.
func (q *quietWatch) hear(table string, went, anything bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if table != "" {
		q.setLocked(table)
	}
	if table != "" || went && q.table != "" || anything {
		q.ask()
	}
}

// look reads all rules. A result without a masking rule counts only if no other check
// became due meanwhile: a rule may have been added since.
func (q *quietWatch) look(ctx context.Context) error {
	table, err := q.read(ctx)
	if err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if table != "" || q.newest() {
		q.setLocked(table)
	}
	return nil
}

// read returns the table of a rule that masks events: `ct event set` of nftables, or the
// target CT of iptables-nft with --ctevents; "" for none. It has a connection of its own,
// since requests on one connection take turns.
func (q *quietWatch) read(ctx context.Context) (table string, err error) {
	conn, err := wire.Dial(q.ns.FD())
	if err != nil {
		return "", err
	}
	defer conn.Close()
	err = conn.Dump(ctx, wire.GetRule, wire.AnyFamily, func() { table = "" }, func(attrs []byte) {
		if table == "" && masksEvents(attrs) {
			table = nlmsg.String(nlmsg.Attr(attrs, unix.NFTA_RULE_TABLE))
		}
	})
	return table, err
}

// set records the table with a rule that masks events; "" for none.
func (q *quietWatch) set(table string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.setLocked(table)
}

func (q *quietWatch) setLocked(table string) {
	q.flows.SetQuiet(table != "")
	if q.table == table {
		return
	}
	q.table = table
	if table != "" {
		q.log.Warn("a rule makes conntrack leave events out (ct event set, or CT --ctevents): sessions are counted by audits alone, and removals and drains proved by table passes; let the rule tell new and related, or take it out",
			"table", table)
		return
	}
	q.log.Info("no rule makes conntrack leave events out any more")
}

// masksEvents reports whether a rule leaves out events that are needed.
func masksEvents(rule []byte) bool {
	loaded := map[uint32]uint32{} // immediate values, by register
	for _, e := range nlmsg.Attrs(nlmsg.Attr(rule, unix.NFTA_RULE_EXPRESSIONS)) {
		data := nlmsg.Attr(e, unix.NFTA_EXPR_DATA)
		switch nlmsg.String(nlmsg.Attr(e, unix.NFTA_EXPR_NAME)) {
		case "immediate":
			value := nlmsg.Attr(nlmsg.Attr(data, unix.NFTA_IMMEDIATE_DATA), unix.NFTA_DATA_VALUE)
			if len(value) == 4 {
				loaded[nlmsg.Uint32(nlmsg.Attr(data, unix.NFTA_IMMEDIATE_DREG))] = binary.NativeEndian.Uint32(value)
			}
		case "ct":
			if from := nlmsg.Attr(data, unix.NFTA_CT_SREG); from != nil &&
				nlmsg.Uint32(nlmsg.Attr(data, unix.NFTA_CT_KEY)) == unix.NFT_CT_EVENTMASK &&
				loaded[nlmsg.Uint32(from)]&eventsNeeded != eventsNeeded {
				return true
			}
		case "target":
			if nlmsg.String(nlmsg.Attr(data, unix.NFTA_TARGET_NAME)) == "CT" && xtMasksEvents(nlmsg.Attr(data, unix.NFTA_TARGET_INFO)) {
				return true
			}
		}
	}
	return false
}

// xtMasksEvents reads struct xt_ct_target_info: two numbers of 16 bits, and then the events,
// which are 0 if the rule sets none.
func xtMasksEvents(info []byte) bool {
	const at = 4
	if len(info) < at+4 {
		return false
	}
	events := binary.NativeEndian.Uint32(info[at:])
	return events != 0 && events&eventsNeeded != eventsNeeded
}
