package nftnat

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/sessiond/sessiond/internal/nftnat/wire"
	"github.com/sessiond/sessiond/internal/nlmsg"
	"golang.org/x/sys/unix"
)

// A flowtable forwards packets of established flows at the ingress hook of its devices. They
// pass no chain, so no gate, until the conntrack entry of their flow is deleted: the lookup of
// a flow fails as soon as its entry is dying.

// FlowtableMode says which flowtables may carry flows of subscribers.
type FlowtableMode uint8

// The modes. Whatever the mode, flowtables of others are found and told, and a removal counts
// as cut only once the entries are deleted while any is there.
const (
	RefuseFlowtables FlowtableMode = iota // none: those of others are an alarm
	AcceptFlowtables                      // those of others
	OwnFlowtable                          // that of our table alone: see fastpath.go
)

var flowtableModes = [...]string{"refuse", "accept", "own"}

// String returns the word of the configuration.
func (m FlowtableMode) String() string { return flowtableModes[m] }

// Flowtables are the flowtables that may carry flows of subscribers.
type Flowtables struct {
	Mode    FlowtableMode
	Others  []string // of other tables, and rules that add flows: "table inet f, flowtable ft, devices i0 s0"
	Refused bool     // some of Others are not accepted
}

// flowtableWatch finds flowtables of other tables that have an inside or outside interface, and
// rules of other tables that add flows to a flowtable.
type flowtableWatch struct {
	rereader
	table      string
	mode       FlowtableMode
	interfaces []string // inside and outside

	bypassed atomic.Bool // flows may pass by the gates

	mu      sync.Mutex
	found   fastPaths
	suspect bool // another may have come since it was read
	told    bool // the first result was logged
}

// fastPaths are the findings of one reading.
type fastPaths struct {
	places   []string // in words, sorted
	hardware bool     // a flowtable has the flag offload
}

func newFlowtableWatch(o Options) flowtableWatch {
	return flowtableWatch{
		rereader: newRereader(o.Logger),
		table:    o.Table, mode: o.Flowtables, interfaces: slices.Concat(o.InsideInterfaces, o.OutsideInterfaces),
	}
}

// start reads everything, or has it read later.
func (w *flowtableWatch) start(ctx context.Context) {
	if found, err := w.read(ctx); err == nil {
		w.set(found)
		return
	}
	w.hear(true, false, false)
}

// run reads everything each time it is due.
func (w *flowtableWatch) run(ctx context.Context) error {
	return w.reread(ctx, w.look, "flowtables of nftables cannot be read; it is tried again whether one may carry flows of subscribers")
}

// hear processes the findings in notices: whether a flowtable or a rule that adds flows may be
// new, whether something went, and whether everything is to be read in any case. One that may
// be new counts as one until all was read.
func (w *flowtableWatch) hear(added, gone, anything bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if added {
		w.suspect = true
		w.bypassed.Store(true)
	}
	if added || anything || gone && (w.suspect || len(w.found.places) > 0) {
		w.ask()
	}
}

func (w *flowtableWatch) look(ctx context.Context) error {
	found, err := w.read(ctx)
	if err != nil {
		return err
	}
	if w.newest() || len(found.places) > 0 {
		w.set(found)
	}
	return nil
}

// set records a reading, and logs the differences from the one before.
func (w *flowtableWatch) set(found fastPaths) {
	w.mu.Lock()
	defer w.mu.Unlock()
	same := w.told && slices.Equal(found.places, w.found.places) && found.hardware == w.found.hardware
	before := w.found
	w.found, w.told, w.suspect = found, true, false
	w.bypassed.Store(w.mode == OwnFlowtable || len(found.places) > 0)
	switch {
	case same:
	case len(found.places) == 0 && len(before.places) == 0:
	case len(found.places) == 0:
		w.log.Info("no flowtable of others may carry flows of subscribers any more")
	case found.hardware:
		w.log.Error("a flowtable of others offloads to hardware, which may forward for a second or more behind the removal of a subscriber, and no receipt tells of it",
			"flowtables", found.places, "do", "take flag offload out of the flowtable, or inside and outside interfaces out of it")
	case w.mode == AcceptFlowtables:
		w.log.Info("flowtables of others carry flows of subscribers, as nat.flowtables allows: those are cut when their conntrack entries are deleted", "flowtables", found.places)
	default:
		w.log.Error("flowtables of others may carry flows of subscribers: their packets pass no gate and no limit, and are cut only when their conntrack entries are deleted; their idle timeouts are the kernel's",
			"flowtables", found.places,
			"do", "take inside and outside interfaces out of the flowtable, and the rules that add flows to it, or set nat.flowtables to accept; own has sessiond make one")
	}
}

// read lists the flowtables and rules. It has a connection of its own, since requests on one
// connection take turns.
func (w *flowtableWatch) read(ctx context.Context) (found fastPaths, err error) {
	conn, err := wire.Dial(w.ns.FD())
	if err != nil {
		return fastPaths{}, err
	}
	defer conn.Close()
	for _, family := range []struct {
		number byte
		name   string
	}{{unix.NFPROTO_IPV4, "ip"}, {unix.NFPROTO_INET, "inet"}} { // one of ip6 carries no IPv4
		ours := func(table string) bool { return family.number == unix.NFPROTO_IPV4 && table == w.table }
		var part fastPaths
		restart := func() { part = fastPaths{} }
		err := conn.Dump(ctx, wire.GetFlowtable, wire.Family(family.number), restart, func(attrs []byte) {
			f := parseFlowtable(attrs)
			if ours(f.table) || !slices.ContainsFunc(f.devices, w.concerns) {
				return
			}
			part.places = append(part.places, fmt.Sprintf("table %s %s, flowtable %s, devices %s%s",
				family.name, f.table, f.name, strings.Join(f.devices, " "), f.inWords()))
			part.hardware = part.hardware || f.hardware()
		})
		if err != nil {
			return fastPaths{}, err
		}
		tables := part
		restart = func() {
			part = fastPaths{places: slices.Clone(tables.places), hardware: tables.hardware}
		}
		err = conn.Dump(ctx, wire.GetRule, wire.Family(family.number), restart, func(attrs []byte) {
			table := nlmsg.String(nlmsg.Attr(attrs, unix.NFTA_RULE_TABLE))
			if to := addsFlowsTo(attrs); to != "" && !ours(table) {
				part.places = append(part.places, fmt.Sprintf("table %s %s, chain %s, flow add @%s",
					family.name, table, nlmsg.String(nlmsg.Attr(attrs, unix.NFTA_RULE_CHAIN)), to))
			}
		})
		if err != nil {
			return fastPaths{}, err
		}
		found.places, found.hardware = append(found.places, part.places...), found.hardware || part.hardware
	}
	slices.Sort(found.places)
	found.places = slices.Compact(found.places)
	return found, nil
}

// concerns reports whether an interface is an inside or outside one.
func (w *flowtableWatch) concerns(device string) bool { return matchesAny(w.interfaces, device) }

// matchesAny reports whether the name of an interface is one of those listed, or begins as one
// of them that ends in anySuffix.
func matchesAny(listed []string, name string) bool {
	return slices.ContainsFunc(listed, func(l string) bool {
		begin, any := strings.CutSuffix(l, anySuffix)
		return l == name || any && strings.HasPrefix(name, begin)
	})
}

func (w *flowtableWatch) view() Flowtables {
	w.mu.Lock()
	defer w.mu.Unlock()
	return Flowtables{
		Mode: w.mode, Others: slices.Clone(w.found.places),
		Refused: len(w.found.places) > 0 && (w.mode != AcceptFlowtables || w.found.hardware),
	}
}

// Flowtables returns the flowtables that may carry flows of subscribers, as last read: a second
// ago at most, once Run runs.
func (p *fastPath) Flowtables() Flowtables { return p.fast.view() }

// Bypassed reports whether packets of established sessions may pass by the gates, through a
// flowtable, until their conntrack entries are deleted.
func (p *fastPath) Bypassed() bool { return p.fast.bypassed.Load() }

// Flowtables on the wire.

// Attributes and flags of linux/netfilter/nf_tables.h that golang.org/x/sys/unix lacks.
const (
	flowtableTable = 1 // NFTA_FLOWTABLE_TABLE
	flowtableName  = 2 // NFTA_FLOWTABLE_NAME
	flowtableHook  = 3 // NFTA_FLOWTABLE_HOOK
	flowtableFlags = 7 // NFTA_FLOWTABLE_FLAGS

	flowtableHookNumber   = 1 // NFTA_FLOWTABLE_HOOK_NUM
	flowtableHookPriority = 2 // NFTA_FLOWTABLE_HOOK_PRIORITY
	flowtableHookDevices  = 3 // NFTA_FLOWTABLE_HOOK_DEVS
	deviceName            = 1 // NFTA_DEVICE_NAME

	flowtableHardware = 1 << 0 // NFT_FLOWTABLE_HW_OFFLOAD
	flowtableCounter  = 1 << 1 // NFT_FLOWTABLE_COUNTER

	flowOffloadTable = 1 // NFTA_FLOW_TABLE_NAME
)

// actualFlowtable is a flowtable in the kernel.
type actualFlowtable struct {
	table, name string
	devices     []string // sorted
	flags       uint32
}

func (f *actualFlowtable) hardware() bool { return f.flags&flowtableHardware != 0 }

func (f *actualFlowtable) inWords() string {
	if f.hardware() {
		return ", offloads to hardware"
	}
	return ""
}

// parseFlowtable reads the attributes of a flowtable.
func parseFlowtable(attrs []byte) actualFlowtable {
	f := actualFlowtable{table: nlmsg.String(nlmsg.Attr(attrs, flowtableTable)), name: nlmsg.String(nlmsg.Attr(attrs, flowtableName))}
	if flags := nlmsg.Attr(attrs, flowtableFlags); len(flags) == 4 {
		f.flags = nlmsg.Uint32(flags)
	}
	for kind, value := range nlmsg.Attrs(nlmsg.Attr(nlmsg.Attr(attrs, flowtableHook), flowtableHookDevices)) {
		if kind == deviceName {
			f.devices = append(f.devices, nlmsg.String(value))
		}
	}
	slices.Sort(f.devices)
	return f
}

// addsFlowsTo returns the flowtable to which a rule adds flows, "" for none.
func addsFlowsTo(rule []byte) string {
	for _, e := range nlmsg.Attrs(nlmsg.Attr(rule, unix.NFTA_RULE_EXPRESSIONS)) {
		if nlmsg.String(nlmsg.Attr(e, unix.NFTA_EXPR_NAME)) == "flow_offload" {
			return nlmsg.String(nlmsg.Attr(nlmsg.Attr(e, unix.NFTA_EXPR_DATA), flowOffloadTable))
		}
	}
	return ""
}
