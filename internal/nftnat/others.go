package nftnat

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables/expr"
	"github.com/sessiond/sessiond/internal/netns"
	"github.com/sessiond/sessiond/internal/nftnat/wire"
	"github.com/sessiond/sessiond/internal/nlmsg"
	"golang.org/x/sys/unix"
)

// Others are the objects of other tables, of family ip and inet, that may concern packets of
// subscribers. Those of iptables-nft are among them, those of iptables-legacy are not.
type Others struct {
	Own        bool // our table is there
	Chains     []OtherChain
	Rules      []OtherRule
	Flowtables []OtherFlowtable
	Helpers    []string // conntrack helpers, as "table NAME, ct helper NAME"
}

// OtherChain is a base chain.
type OtherChain struct {
	Family, Table, Name string
	Type                string // "filter", "nat", "route"
	Hook                string
	Priority            int32
	PolicyDrop          bool
}

// OtherRule is a rule with an effect that may concern packets of subscribers, and the conditions
// of it that are read.
type OtherRule struct {
	Family, Table, Chain string
	Handle               uint64

	Translates bool // the source
	Untracked  bool
	Quiet      bool   // it makes conntrack leave out events that the index of sessions needs
	Flowtable  string // to which it adds flows
	Accepts    bool
	Jumps      bool

	Input, Output string       // interfaces; one that ends in * stands for all that begin so, "" for any
	Source        netip.Prefix // the zero prefix for any
	Narrow        bool         // it has other conditions besides
}

// OtherFlowtable is a flowtable.
type OtherFlowtable struct {
	Family, Table, Name string
	Devices             []string
	Hardware            bool
}

// tableFamilies are the families of tables whose chains see packets of subscribers.
var tableFamilies = []struct {
	number byte
	name   string
}{{unix.NFPROTO_IPV4, "ip"}, {unix.NFPROTO_INET, "inet"}} // ip6 sees no IPv4

// ReadOthers reads the objects of all tables but the one of family ip with a name. It changes
// nothing, and needs no Kernel.
func ReadOthers(ctx context.Context, ns netns.Namespace, table string) (o Others, err error) {
	conn, err := wire.Dial(ns.FD())
	if err != nil {
		return Others{}, forbidden(unanswered(err))
	}
	defer conn.Close()
	for _, family := range tableFamilies {
		var part Others
		restart := func() { part = Others{} }
		ours := func(name string) bool { return family.number == unix.NFPROTO_IPV4 && name == table }
		err := conn.Dump(ctx, wire.GetTable, wire.Family(family.number), restart, func(attrs []byte) {
			part.Own = part.Own || ours(nlmsg.String(nlmsg.Attr(attrs, unix.NFTA_TABLE_NAME)))
		})
		if err != nil {
			return Others{}, fmt.Errorf("list tables: %w", err)
		}
		o.Own = o.Own || part.Own
		err = conn.Dump(ctx, wire.GetChain, wire.Family(family.number), restart, func(attrs []byte) {
			if c, ok := parseBaseChain(attrs); ok && !ours(c.Table) {
				c.Family = family.name
				part.Chains = append(part.Chains, c)
			}
		})
		if err != nil {
			return Others{}, fmt.Errorf("list chains: %w", err)
		}
		o.Chains = append(o.Chains, part.Chains...)
		err = conn.Dump(ctx, wire.GetRule, wire.Family(family.number), restart, func(attrs []byte) {
			if r, ok := parseOtherRule(attrs); ok && !ours(r.Table) {
				r.Family = family.name
				part.Rules = append(part.Rules, r)
			}
		})
		if err != nil {
			return Others{}, fmt.Errorf("list rules: %w", err)
		}
		o.Rules = append(o.Rules, part.Rules...)
		err = conn.Dump(ctx, wire.GetFlowtable, wire.Family(family.number), restart, func(attrs []byte) {
			if f := parseFlowtable(attrs); !ours(f.table) {
				part.Flowtables = append(part.Flowtables, OtherFlowtable{
					Family: family.name, Table: f.table, Name: f.name, Devices: f.devices, Hardware: f.hardware(),
				})
			}
		})
		if err != nil {
			return Others{}, fmt.Errorf("list flowtables: %w", err)
		}
		o.Flowtables = append(o.Flowtables, part.Flowtables...)
	}
	if o.Helpers, err = listHelpers(ctx, conn); err != nil {
		return Others{}, fmt.Errorf("list conntrack helpers: %w", err)
	}
	slices.SortStableFunc(o.Chains, func(a, b OtherChain) int { return cmp.Compare(a.Priority, b.Priority) })
	return o, nil
}

// hookNames are the hooks of netfilter, by number.
var hookNames = [...]string{"prerouting", "input", "forward", "output", "postrouting"}

// parseBaseChain reads the attributes of a chain; ok is false for one without a hook.
func parseBaseChain(attrs []byte) (c OtherChain, ok bool) {
	hook := nlmsg.Attr(attrs, unix.NFTA_CHAIN_HOOK)
	number, priority := nlmsg.Attr(hook, unix.NFTA_HOOK_HOOKNUM), nlmsg.Attr(hook, unix.NFTA_HOOK_PRIORITY)
	if len(number) != 4 || len(priority) != 4 || nlmsg.Uint32(number) >= uint32(len(hookNames)) {
		return OtherChain{}, false
	}
	policy := nlmsg.Attr(attrs, unix.NFTA_CHAIN_POLICY)
	return OtherChain{
		Table: nlmsg.String(nlmsg.Attr(attrs, unix.NFTA_CHAIN_TABLE)), Name: nlmsg.String(nlmsg.Attr(attrs, unix.NFTA_CHAIN_NAME)),
		Type: nlmsg.String(nlmsg.Attr(attrs, unix.NFTA_CHAIN_TYPE)), Hook: hookNames[nlmsg.Uint32(number)],
		Priority: int32(nlmsg.Uint32(priority)), PolicyDrop: len(policy) == 4 && int64(nlmsg.Uint32(policy)) == int64(expr.VerdictDrop),
	}, true
}

// Where a rule's comparison finds its octets.
const (
	offsetSource = 12 // of IPv4's header
	lengthSource = 4
)

// parseOtherRule reads the attributes of a rule; ok is false for one without an effect.
func parseOtherRule(attrs []byte) (r OtherRule, ok bool) {
	r.Table, r.Chain = nlmsg.String(nlmsg.Attr(attrs, unix.NFTA_RULE_TABLE)), nlmsg.String(nlmsg.Attr(attrs, unix.NFTA_RULE_CHAIN))
	if handle := nlmsg.Attr(attrs, unix.NFTA_RULE_HANDLE); len(handle) == 8 {
		r.Handle = nlmsg.Uint64(handle)
	}
	r.Quiet, r.Flowtable = masksEvents(attrs), addsFlowsTo(attrs)
	m := ruleMatches{rule: &r}
	for _, e := range nlmsg.Attrs(nlmsg.Attr(attrs, unix.NFTA_RULE_EXPRESSIONS)) {
		m.add(nlmsg.String(nlmsg.Attr(e, unix.NFTA_EXPR_NAME)), nlmsg.Attr(e, unix.NFTA_EXPR_DATA))
	}
	return r, r.Translates || r.Untracked || r.Quiet || r.Flowtable != "" || r.Accepts || r.Jumps
}

// loadedValue is the value that a rule has loaded into its register.
type loadedValue uint8

const (
	loadedOther loadedValue = iota
	loadedInput
	loadedOutput
	loadedSource
	loadedProtocol // the family of the packet, which inet tables compare before they look at addresses
)

// ruleMatches reads the conditions and the effects of a rule, one expression after the other.
type ruleMatches struct {
	rule   *OtherRule
	loaded loadedValue
	length int    // of a loaded source
	mask   []byte // of a loaded source
}

func (m *ruleMatches) add(name string, data []byte) {
	switch name {
	case "meta":
		m.load(nlmsg.Attr(data, unix.NFTA_META_KEY), nlmsg.Attr(data, unix.NFTA_META_DREG))
	case "payload":
		m.loaded, m.mask = loadedOther, nil
		base, offset, length := nlmsg.Attr(data, unix.NFTA_PAYLOAD_BASE), nlmsg.Attr(data, unix.NFTA_PAYLOAD_OFFSET), nlmsg.Attr(data, unix.NFTA_PAYLOAD_LEN)
		if len(base) == 4 && len(offset) == 4 && len(length) == 4 &&
			nlmsg.Uint32(base) == unix.NFT_PAYLOAD_NETWORK_HEADER && nlmsg.Uint32(offset) == offsetSource && nlmsg.Uint32(length) <= lengthSource {
			m.loaded, m.length = loadedSource, int(nlmsg.Uint32(length))
		}
	case "bitwise":
		m.mask = nlmsg.Attr(nlmsg.Attr(data, unix.NFTA_BITWISE_MASK), unix.NFTA_DATA_VALUE)
	case "cmp":
		m.compare(data)
	case "immediate":
		m.verdict(nlmsg.Attr(nlmsg.Attr(data, unix.NFTA_IMMEDIATE_DATA), unix.NFTA_DATA_VERDICT))
	case "masq":
		m.rule.Translates = true
	case "nat":
		kind := nlmsg.Attr(data, unix.NFTA_NAT_TYPE)
		m.rule.Translates = m.rule.Translates || len(kind) == 4 && nlmsg.Uint32(kind) == unix.NFT_NAT_SNAT
	case "notrack":
		m.rule.Untracked = true
	case "target": // of iptables-nft
		switch nlmsg.String(nlmsg.Attr(data, unix.NFTA_TARGET_NAME)) {
		case "MASQUERADE", "SNAT", "NETMAP":
			m.rule.Translates = true
		case "NOTRACK":
			m.rule.Untracked = true
		case "ACCEPT":
			m.rule.Accepts = true
		}
	case "counter", "log", "flow_offload", "ct": // no conditions, or those whose comparison follows
		m.loaded = loadedOther
	default:
		m.rule.Narrow, m.loaded = true, loadedOther
	}
}

// load notes a value that meta loads. meta also sets values, which is no condition.
func (m *ruleMatches) load(key, register []byte) {
	m.loaded = loadedOther
	if len(key) != 4 || len(register) != 4 {
		return
	}
	switch nlmsg.Uint32(key) {
	case unix.NFT_META_IIFNAME:
		m.loaded = loadedInput
	case unix.NFT_META_OIFNAME:
		m.loaded = loadedOutput
	case unix.NFT_META_NFPROTO, unix.NFT_META_PROTOCOL:
		m.loaded = loadedProtocol
	}
}

func (m *ruleMatches) compare(data []byte) {
	value := nlmsg.Attr(nlmsg.Attr(data, unix.NFTA_CMP_DATA), unix.NFTA_DATA_VALUE)
	op := nlmsg.Attr(data, unix.NFTA_CMP_OP)
	if len(op) != 4 || nlmsg.Uint32(op) != unix.NFT_CMP_EQ {
		m.rule.Narrow = true
		return
	}
	switch m.loaded {
	case loadedInput:
		m.rule.Input = interfaceOf(value)
	case loadedOutput:
		m.rule.Output = interfaceOf(value)
	case loadedProtocol:
	case loadedSource:
		m.rule.Source = sourceOf(value, m.mask, m.length)
		m.rule.Narrow = m.rule.Narrow || !m.rule.Source.IsValid()
	default:
		m.rule.Narrow = true
	}
}

// interfaceOf reads a compared name, which has no end where the rule compares a beginning.
func interfaceOf(value []byte) string {
	name, _, ended := strings.Cut(string(value), "\x00")
	if !ended {
		name += anySuffix
	}
	return name
}

// sourceOf reads a compared source; a prefix of whole octets is compared without a mask.
func sourceOf(value, mask []byte, length int) netip.Prefix {
	if len(value) != length || mask != nil && len(mask) != length {
		return netip.Prefix{}
	}
	var address [4]byte
	copy(address[:], value)
	bits := 8 * length
	if mask != nil {
		bits = 0
		for _, octet := range mask {
			for ; octet&0x80 != 0; octet <<= 1 {
				bits++
			}
		}
	}
	return netip.PrefixFrom(netip.AddrFrom4(address), bits).Masked()
}

func (m *ruleMatches) verdict(verdict []byte) {
	code := nlmsg.Attr(verdict, unix.NFTA_VERDICT_CODE)
	if len(code) != 4 {
		return // a value for a register
	}
	switch expr.VerdictKind(int32(nlmsg.Uint32(code))) {
	case expr.VerdictAccept:
		m.rule.Accepts = true
	case expr.VerdictJump, expr.VerdictGoto:
		m.rule.Jumps = true
	}
}

// Probe starts everything in a network namespace of its own, which ends with the call, and returns
// the errors of what the kernel lacks. Modules are loaded on demand, as by a start. It needs
// CAP_SYS_ADMIN besides CAP_NET_ADMIN.
func Probe(ctx context.Context, o Options) (lacking []error, err error) {
	err = netns.Scratch(func(path string) error {
		o.NetNS, o.OutsideInterfaces = path, []string{"lo"} // there is no other
		k, err := DialKernel(o)
		if err != nil {
			lacking = append(lacking, err)
			return nil
		}
		if err := k.Start(ctx); err != nil {
			lacking = append(lacking, err)
		}
		if err := RaiseBarrier(o); err != nil {
			lacking = append(lacking, err)
		}
		return k.Close()
	})
	return lacking, err
}
