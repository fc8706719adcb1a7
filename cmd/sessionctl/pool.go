package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
)

// poolCommands are the commands that show and change pools.
type poolCommands struct{ *app }

func (a poolCommands) command() *cobra.Command {
	c := group("pool", "Public address pools", a.listCommand(), a.addCommand(), a.drainCommand(), a.removeCommand(), a.adviseCommand())
	c.Aliases = []string{"pools"}
	return c
}

func (a poolCommands) listCommand() *cobra.Command {
	req := &pb.ListPoolsRequest{}
	c := &cobra.Command{
		Use:     "list",
		Short:   "Count the port blocks of every outside prefix",
		Example: "  sessionctl pool list --sort -taken",
		Args:    args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := a.nat()
			if err != nil {
				return err
			}
			ctx, cancel := a.bounded(c.Context())
			defer cancel()
			res, err := client.ListPools(ctx, req)
			if err != nil {
				return err
			}
			out := newList(&a.printer, poolHeader, poolRow)
			out.leastImportant(poolLeast...)
			out.nobody = "no such pool"
			if err := out.addAll(res.GetPools()); err != nil {
				return err
			}
			return out.end()
		},
	}
	c.Flags().StringVar(&req.Group, "group", "", "only this `group`")
	a.completeGroups(c)
	a.listFlags(c, poolHeader)
	return c
}

func (a poolCommands) addCommand() *cobra.Command {
	req := &pb.AddPoolRequest{}
	c := &cobra.Command{
		Use:   "add PREFIX [--group G]",
		Short: "Give a group a public prefix, or put one back that drains or was removed",
		Long: "Give a group a public prefix, or put one back that drains or was removed.\n\n" +
			"The change is kept in Redis, across restarts. Write it into the configuration\ntoo: what stands there holds without Redis.",
		Example: "  sessionctl pool add 203.0.113.0/28 --group default",
	}
	return a.changeCommand(c, &req.Group, func(ctx context.Context, client pb.NatServiceClient, outside string, order orderFlags) (poolAnswer, error) {
		req.OutsidePrefix, req.Reason, req.RequestId, req.ValidateOnly = outside, order.reason, order.requestID, order.validateOnly
		return client.AddPool(ctx, req)
	})
}

func (a poolCommands) drainCommand() *cobra.Command {
	req := &pb.DrainPoolRequest{}
	c := &cobra.Command{
		Use:     "drain PREFIX [--group G]",
		Short:   "Give no more blocks of a public prefix, or of a part of one; live bindings stay",
		Example: "  sessionctl pool drain 198.51.100.0/28",
	}
	return a.changeCommand(c, &req.Group, func(ctx context.Context, client pb.NatServiceClient, outside string, order orderFlags) (poolAnswer, error) {
		req.OutsidePrefix, req.Reason, req.RequestId, req.ValidateOnly = outside, order.reason, order.requestID, order.validateOnly
		return client.DrainPool(ctx, req)
	})
}

func (a poolCommands) removeCommand() *cobra.Command {
	req := &pb.RemovePoolRequest{}
	var yes bool
	c := &cobra.Command{
		Use:   "remove PREFIX [--group G] [--allow-disruption]",
		Short: "Take a public prefix, or a part of one, away from a group",
		Long: "Take a public prefix, or a part of one, away from a group. It is refused while\n" +
			"the prefix has live bindings. With --allow-disruption they are cut: their\n" +
			"subscribers stay online, lose their sessions, and get blocks of other prefixes.",
		Example: "  sessionctl pool remove 198.51.100.0/28 --allow-disruption",
	}
	a.changeCommand(c, &req.Group, func(ctx context.Context, client pb.NatServiceClient, outside string, order orderFlags) (poolAnswer, error) {
		req.OutsidePrefix, req.Reason, req.RequestId, req.ValidateOnly = outside, order.reason, order.requestID, order.validateOnly
		question := "Remove " + outside + "?"
		if req.GetAllowDisruption() {
			question = "Remove " + outside + ", and cut the live bindings there?"
		}
		if err := a.confirm(yes || order.validateOnly, func() (string, error) { return question, nil }); err != nil {
			return nil, err
		}
		return client.RemovePool(ctx, req)
	})
	c.Flags().BoolVar(&req.AllowDisruption, "allow-disruption", false, "cut the live bindings of the prefix")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return c
}

// poolAnswer is the answer to a change of a pool.
type poolAnswer interface {
	proto.Message
	GetPools() []*pb.Pool
}

// changeCommand completes a command that changes a pool.
func (a poolCommands) changeCommand(c *cobra.Command, inGroup *string, change func(ctx context.Context, client pb.NatServiceClient, outside string, order orderFlags) (poolAnswer, error)) *cobra.Command {
	var order orderFlags
	c.Args = args(cobra.ExactArgs(1))
	c.ValidArgsFunction = a.completePools
	c.RunE = func(c *cobra.Command, given []string) error {
		client, err := a.nat()
		if err != nil {
			return err
		}
		ctx, cancel := a.bounded(c.Context())
		defer cancel()
		answer, err := change(ctx, client, given[0], order)
		if err != nil {
			return err
		}
		if order.validateOnly {
			return a.showTrial(answer)
		}
		return a.showChange(answer)
	}
	c.Flags().StringVar(inGroup, "group", "", "the `group`; may be left out where there is only one, or only one has the prefix")
	a.completeGroups(c)
	order.register(c)
	return c
}

// showTrial prints the answer to a change of a pool that was only tried.
func (a poolCommands) showTrial(answer poolAnswer) error {
	removed, ok := answer.(*pb.RemovePoolResponse)
	if !ok {
		return a.tried(answer, "be done")
	}
	return a.tried(answer, "cut %s and end %s", plural(removed.GetBindingsCut(), "live binding"), plural(removed.GetSessionsEnded(), "NAT session"))
}

// showChange prints the pools after a change, and how many bindings it cuts.
func (a poolCommands) showChange(answer poolAnswer) error {
	if !a.forPeople() {
		return a.message(answer)
	}
	if removed, ok := answer.(*pb.RemovePoolResponse); ok {
		text := "removed"
		if n := removed.GetBindingsCut(); n > 0 {
			text += "; " + plural(n, "live binding") + " cut"
		}
		if len(answer.GetPools()) > 0 {
			text += "; its route goes with its last block"
		}
		if _, err := fmt.Fprintln(a.stdout, text); err != nil {
			return err
		}
	}
	if len(answer.GetPools()) == 0 {
		return nil
	}
	out := newList(&a.printer, poolHeader, poolRow)
	out.leastImportant(poolLeast...)
	if err := out.addAll(answer.GetPools()); err != nil {
		return err
	}
	return out.end()
}

var poolHeader = []string{"GROUP", "OUTSIDE", "BLOCKS", "USED", "HELD", "FREE", "TAKEN", "DRAINING", "PORTS", "PEAK", "P50", "P99", "MAX", "ORIGIN", "CHANGE"}

// poolLeast are the columns that go first where there is no room.
var poolLeast = []string{"P50", "P99", "MAX", "ORIGIN", "CHANGE", "PEAK", "PORTS", "GROUP"}

func poolRow(p *pb.Pool) []string {
	return []string{
		p.GetGroup(), p.GetOutsidePrefix(), number(p.GetBlocksTotal()),
		number(p.GetBlocksUsed()), number(p.GetBlocksHeld()), number(p.GetBlocksFree()),
		percent(p.GetBlocksUsed()+p.GetBlocksHeld(), p.GetBlocksTotal()),
		yesIf(p.GetDraining()),
		number(allPorts(p.GetPortsInUse())), number(allPorts(p.GetPortsPeak())),
		number(p.GetSubscriberPorts().GetP50()), number(p.GetSubscriberPorts().GetP99()), number(p.GetSubscriberPorts().GetMax()),
		poolOrigins[p.GetOrigin()], or(poolChanges[p.GetChange()], none),
	}
}

var (
	poolOrigins = map[pb.PoolOrigin]string{
		pb.PoolOrigin_POOL_ORIGIN_UNSPECIFIED: none, pb.PoolOrigin_POOL_ORIGIN_CONFIGURATION: "config",
		pb.PoolOrigin_POOL_ORIGIN_RUN_TIME: "run time", pb.PoolOrigin_POOL_ORIGIN_FORMER: "former",
	}
	poolChanges = map[pb.PoolChange]string{
		pb.PoolChange_POOL_CHANGE_ADDED: "added", pb.PoolChange_POOL_CHANGE_DRAINED: "drained", pb.PoolChange_POOL_CHANGE_REMOVED: "removed",
	}
)

// allPorts adds up the protocols.
func allPorts(u *pb.PortUse) uint32 { return u.GetTcp() + u.GetUdp() + u.GetIcmp() }

func (a poolCommands) adviseCommand() *cobra.Command {
	req := &pb.AdviseBlockSizeRequest{}
	target := 0.1
	c := &cobra.Command{
		Use:     "advise",
		Short:   "Say which block size to take, by the ports that subscribers used",
		Example: "  sessionctl pool advise --target 0.2",
		Long: `Says for each block size which share of the bindings would have overflowed: used
more ports of a protocol at a time than a block has. Recommended is the smallest
size with at most the target share. The figures are of the time since sessiond
started; a ">=" marks a share that may be larger, because flows that the kernel
refused in full blocks are not counted.`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if !(target >= 0 && target <= 100) {
				return usagef("--target is a percentage, 0 to 100")
			}
			share := target / 100
			req.OverflowTarget = &share
			client, err := a.nat()
			if err != nil {
				return err
			}
			ctx, cancel := a.bounded(c.Context())
			defer cancel()
			res, err := client.AdviseBlockSize(ctx, req)
			if err != nil {
				return err
			}
			return a.printAdvice(res.GetGroups())
		},
	}
	c.Flags().StringVar(&req.Group, "group", "", "only this `group`")
	c.Flags().Float64Var(&target, "target", target, "`percent` of the bindings that may overflow")
	a.completeGroups(c)
	return c
}

// printAdvice prints each group's advice, as a table with its notes behind it.
func (a poolCommands) printAdvice(groups []*pb.BlockSizeAdvice) error {
	for i, g := range groups {
		if !a.forPeople() {
			if err := a.message(g); err != nil {
				return err
			}
			continue
		}
		if i > 0 {
			fmt.Fprintln(a.stdout)
		}
		take := "none"
		if size := g.GetRecommendedBlockSize(); size > 0 {
			take = number(size)
		}
		observed := g.GetObservedUntil().AsTime().Sub(g.GetObservedSince().AsTime()).Round(time.Second)
		err := a.fields([][2]string{
			{"group", g.GetGroup()},
			{"block size to take", take},
			{"at present", number(g.GetBlockSize())},
			{"target", fmt.Sprintf("%g %%", 100*g.GetOverflowTarget())},
			{"observed", fmt.Sprintf("%d bindings in %v, %d live now, %d filled their block", g.GetBindingsObserved(), observed, g.GetBindingsLive(), g.GetBindingsFull())},
		})
		if err != nil {
			return err
		}
		table := newTable(a.stdout, []string{"SIZE", "OVERFLOWED", "SHARE", "SUBSCRIBERS"})
		for _, s := range g.GetSizes() {
			share := none
			if g.GetBindingsObserved() > 0 {
				share = fmt.Sprintf("%.3f %%", 100*s.GetOverflowShare())
			}
			if s.GetLowerBound() {
				share = ">= " + share
			}
			if err := table.add([]string{number(s.GetBlockSize()), number(s.GetBindingsOverflowed()), share, number(s.GetSubscribers())}); err != nil {
				return err
			}
		}
		if err := table.end(); err != nil {
			return err
		}
		for _, n := range g.GetNotes() {
			fmt.Fprintln(a.stdout, "note:", n)
		}
	}
	return nil
}

// yesIf returns a table's word for true, none for false.
func yesIf(b bool) string {
	if b {
		return "yes"
	}
	return none
}

func percent(part, whole uint32) string {
	if whole == 0 {
		return none
	}
	return fmt.Sprintf("%.1f %%", 100*float64(part)/float64(whole))
}
