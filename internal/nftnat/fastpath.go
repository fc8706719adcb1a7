package nftnat

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"github.com/sessiond/sessiond/internal/clock"
	"github.com/sessiond/sessiond/internal/conntrack"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nftnat/wire"
	"github.com/sessiond/sessiond/internal/nlmsg"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// The flowtable of the table (OwnFlowtable). Flows go to it when all chains of the forward hook
// let a packet of theirs pass, those of others too, so that a flow that a firewall stops in its
// first packets is never there. They are established ones alone: conntrack calls a flow
// assured once a TCP connection stands, or UDP has gone both ways for two seconds. So a query
// for a name costs no entry.
//
// Left out are flows that need a chain for every packet: those that keep their inside address,
// which the barrier passes by a mark, and those with a learned mapping, which packets refresh.

const (
	flowtableFast = "fast"
	chainFast     = "to_fast"

	// priorityFast is behind all chains of the forward hook that nft has names for.
	priorityFast = 200
)

// flowtable is the wanted flowtable.
type flowtable struct {
	name    string
	devices []string // sorted
}

func newFlowtable(o Options) *flowtable {
	if o.Flowtables != OwnFlowtable {
		return nil
	}
	return &flowtable{flowtableFast, o.devices}
}

func fastChains(o Options) []chain {
	if o.Flowtables != OwnFlowtable {
		return nil
	}
	return []chain{{name: chainFast, kind: "filter", hook: unix.NF_INET_FORWARD, priority: priorityFast}}
}

// fastRules look at packets of subscribers that leave: chain forward has let them pass, and one
// direction is enough for the kernel to add both.
func fastRules(o Options) []rule {
	if o.Flowtables != OwnFlowtable {
		return nil
	}
	leaves := slices.Concat(in(loadSource, setInsidePrefixes), in(loadOutputName, setOutsideInterfaces),
		statusHas(conntrack.StatusAssured), statusHas(conntrack.StatusSourceTranslated|conntrack.StatusDestinationTranslated))
	if o.Mappings.on() {
		outside := &expr.Ct{Register: unix.NFT_REG_1, Key: expr.CtKeyDST, Direction: 1} // of the reply
		leaves = append(leaves, notIn(outside, setMapped)...)
	}
	return []rule{
		{chainFast, "", then(slices.Concat(protocolIs(unix.IPPROTO_TCP), leaves), &expr.FlowOffload{Name: flowtableFast})},
		{chainFast, "", then(slices.Concat(protocolIs(unix.IPPROTO_UDP), leaves), &expr.FlowOffload{Name: flowtableFast})},
	}
}

// Operations.

// planFlowtable makes the wanted flowtable, and gives it the interfaces that it lacks.
func (r *ruleset) planFlowtable(s *actualRuleset, b *wire.Batch) {
	if r.fast == nil {
		return
	}
	i := slices.IndexFunc(s.fast, func(f actualFlowtable) bool { return f.name == r.fast.name })
	if i < 0 {
		r.addFlowtable(b)
		return
	}
	r.changeDevices(b, wire.NewFlowtable, "add interfaces to flowtable", without(r.fast.devices, s.fast[i].devices))
	r.changeDevices(b, wire.DelFlowtable, "take interfaces from flowtable", without(s.fast[i].devices, r.fast.devices))
}

// dropFlowtables deletes all others, once no rule adds flows to them.
func (r *ruleset) dropFlowtables(s *actualRuleset, b *wire.Batch) {
	for _, f := range s.fast {
		if r.fast != nil && f.name == r.fast.name {
			continue
		}
		b.Add(wire.DelFlowtable, wire.Op{Verb: "delete flowtable", Object: f.name}, func(dst []byte) []byte {
			return appendFlowtable(dst, r.table, f.name)
		})
	}
}

// mostDevices is the number of interfaces in one message: the kernel takes 256.
const mostDevices = 200

func (r *ruleset) addFlowtable(b *wire.Batch) {
	if r.fast == nil {
		return
	}
	first := r.fast.devices[:min(len(r.fast.devices), mostDevices)]
	b.Add(wire.NewFlowtable, wire.Op{Verb: "add flowtable", Object: r.fast.name}, func(dst []byte) []byte {
		dst = appendDevices(appendFlowtable(dst, r.table, r.fast.name), first)
		return nlmsg.AppendUint32(dst, flowtableFlags, flowtableCounter)
	})
	r.changeDevices(b, wire.NewFlowtable, "add interfaces to flowtable", r.fast.devices[len(first):])
}

func (r *ruleset) changeDevices(b *wire.Batch, cmd wire.Command, verb string, devices []string) {
	for part := range slices.Chunk(devices, mostDevices) {
		b.Add(cmd, wire.Op{Verb: verb, Object: r.fast.name}, func(dst []byte) []byte {
			dst = appendDevices(appendFlowtable(dst, r.table, r.fast.name), part)
			if cmd == wire.NewFlowtable { // else the kernel takes it for a change
				dst = nlmsg.AppendUint32(dst, flowtableFlags, flowtableCounter)
			}
			return dst
		})
	}
}

func appendFlowtable(dst []byte, table, name string) []byte {
	return nlmsg.AppendString(nlmsg.AppendString(dst, flowtableTable, table), flowtableName, name)
}

// appendDevices appends the hook: the ingress of interfaces, at priority filter.
func appendDevices(dst []byte, devices []string) []byte {
	const ingress = 0 // NF_NETDEV_INGRESS
	hook := len(dst)
	dst = nlmsg.BeginNested(dst, flowtableHook)
	dst = nlmsg.AppendUint32(dst, flowtableHookNumber, ingress)
	dst = nlmsg.AppendUint32(dst, flowtableHookPriority, 0)
	list := len(dst)
	dst = nlmsg.BeginNested(dst, flowtableHookDevices)
	for _, name := range devices {
		dst = nlmsg.AppendString(dst, deviceName, name)
	}
	return nlmsg.EndNested(nlmsg.EndNested(dst, list), hook)
}

// without returns those of a sorted list that are not in another sorted one.
func without(list, other []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool {
		_, there := slices.BinarySearch(other, s)
		return there
	})
}

func (s *actualRuleset) readFlowtables(ctx context.Context, conn *wire.Conn, table string) error {
	return list(ctx, conn, wire.GetFlowtable, table, flowtableTable, func() { s.fast = nil }, func(attrs []byte) {
		s.fast = append(s.fast, parseFlowtable(attrs))
	})
}

// errNoFlowtables is the reason of a kernel without them.
var errNoFlowtables = errors.New("this kernel has no flowtables for nat.flowtables: own; load its modules (modprobe -a nf_flow_table nf_flow_table_inet nft_flow_offload), install the kernel that has them, or write refuse")

// withoutFlowtables says what a failed operation on the flowtable means.
func withoutFlowtables(err error) error {
	var refused *wire.Error
	if !errors.As(err, &refused) || refused.Op.Object != flowtableFast && refused.Op.Object != chainFast {
		return err
	}
	return fmt.Errorf("%w: %w", errNoFlowtables, err)
}

// fastPath is the part of a Kernel that is about flowtables: ours and those of others.
type fastPath struct {
	kernel *Kernel
	fast   flowtableWatch
}

// Interfaces.

// listDevices brings the options up to the present inside and outside interfaces: a flowtable
// takes existing ones alone, and the kernel takes an interface that goes from it.
func (p *fastPath) listDevices() error {
	if p.fast.mode != OwnFlowtable {
		return nil
	}
	names, err := p.kernel.routes.linkNames()
	if err != nil {
		return err
	}
	p.kernel.options.devices = slices.DeleteFunc(names, func(name string) bool { return !p.fast.concerns(name) })
	slices.Sort(p.kernel.options.devices)
	return nil
}

// lostDevice reports whether the kernel refused the flowtable because an interface has gone
// since it was listed.
func (p *fastPath) lostDevice(err error) bool {
	before := p.kernel.options.devices
	return errors.Is(err, unix.ENOENT) && p.listDevices() == nil && !slices.Equal(before, p.kernel.options.devices)
}

// followLinks gives the flowtable the interfaces that come, once a second at most.
func (p *fastPath) followLinks(ctx context.Context) error {
	if p.fast.mode != OwnFlowtable {
		return nil
	}
	notices, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{NetNS: p.kernel.ns.FD()})
	if err != nil {
		return fmt.Errorf("open link notice socket: %w", err)
	}
	defer notices.Close()
	if err := notices.JoinGroup(unix.RTNLGRP_LINK); err != nil {
		return fmt.Errorf("listen for link notices: %w", err)
	}
	due := make(chan struct{}, 1)
	due <- struct{}{} // an interface may have come since the start
	g, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, func() { _ = notices.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	g.Go(func() error {
		for {
			_, err := notices.Receive()
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case err != nil && !errors.Is(err, unix.ENOBUFS): // some were lost: look all the same
				return fmt.Errorf("receive link notices: %w", err)
			}
			select {
			case due <- struct{}{}:
			default:
			}
		}
	})
	g.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-due:
			}
			p.kernel.report(ctx, p.updateDevices(ctx))
			if err := clock.Sleep(ctx, watchInterval); err != nil {
				return err
			}
		}
	})
	return g.Wait()
}

// updateDevices makes the table as wanted, if the interfaces of the flowtable are not those that
// it was given.
func (p *fastPath) updateDevices(ctx context.Context) error {
	if err := p.kernel.lock(ctx); err != nil {
		return err
	}
	defer p.kernel.unlock()
	before := p.kernel.options.devices
	if err := p.listDevices(); p.kernel.removed || err != nil || slices.Equal(before, p.kernel.options.devices) {
		return err
	}
	_, err := p.kernel.converge(ctx)
	return err
}

// Consequences.

// Idle timeouts of the namespace that a flow gets as it comes back from a flowtable: the
// kernel takes these, less the time that it was idle in the flowtable, instead of its policy's.
var (
	defaultTCP = defaultTimeout{unix.IPPROTO_TCP, 3, "net.netfilter.nf_conntrack_tcp_timeout_established", "TCP sessions that come from a flowtable"}
	defaultUDP = defaultTimeout{unix.IPPROTO_UDP, 2, "net.netfilter.nf_conntrack_udp_timeout_stream", "UDP sessions that come from a flowtable"}
)

// setDefaults sets the idle timeouts of the namespace that subscribers' flows get: that of ICMP,
// and, where flowtables may carry flows, those of established TCP and UDP.
func (p *fastPath) setDefaults() {
	p.kernel.shared.set(defaultICMP, p.kernel.options.longest(icmpOf))
	if p.fast.mode == RefuseFlowtables {
		return
	}
	p.kernel.shared.set(defaultTCP, p.kernel.options.longest(func(t nat.Timeouts) time.Duration { return t.TCPEstablished }))
	p.kernel.shared.set(defaultUDP, p.kernel.options.longest(func(t nat.Timeouts) time.Duration { return t.UDP }))
}

// warnOfSkippedRules logs what a flowtable of others takes from the groups: ours is kept from
// it by its rules.
func (o *Options) warnOfSkippedRules(log *slog.Logger) {
	if o.Flowtables != AcceptFlowtables {
		return
	}
	if len(o.NoNAT) > 0 {
		log.Warn("flowtables of others stop sessions without NAT (groups[].no_nat): the barrier drops packets that pass no chain; keep these destinations from the rules that add flows")
	}
	if o.Mappings.on() {
		log.Warn("flowtables of others let learned mappings (groups[].mapping) run out while their flows go on: packets that pass no chain refresh none; keep these subscribers from the rules that add flows")
	}
}
