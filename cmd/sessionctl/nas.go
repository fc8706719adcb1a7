package main

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
)

// clockInOrder is the largest clock error that counts as right: stamps are
// whole seconds, and packets take time.
const clockInOrder = 5 * time.Second

// nasCommands are the commands that show access routers.
type nasCommands struct{ *app }

func (a nasCommands) command() *cobra.Command {
	c := group("nas", "The access routers (BNGs), their clocks and what they got refused", a.listCommand(), a.getCommand())
	c.Aliases = []string{"nases"}
	return c
}

func (a nasCommands) listCommand() *cobra.Command {
	req := &pb.ListNasesRequest{PageSize: pageSize}
	c := &cobra.Command{
		Use:     "list",
		Short:   "List the NASes heard of within 30 days, and those with subscribers online",
		Example: "  sessionctl nas list\n  sessionctl nas list --client core -o json",
		Args:    args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			out := newList(&a.printer, nasHeader, a.row)
			out.leastImportant("SAME AS", "RESTARTED", "HEARD", "CLIENT")
			out.nobody = "no such NAS is known"
			if err := a.each(c.Context(), req, out.addAll); err != nil {
				return err
			}
			return out.end()
		},
	}
	c.Flags().StringVar(&req.Client, "client", "", "only those of this RADIUS `client` or realm")
	c.Flags().StringVar(&req.Name, "nas", "", "only this `NAS`")
	a.completeNASFlags(c)
	a.listFlags(c, nasHeader)
	return c
}

// eachNAS pages through all NASes that match.
func (a nasCommands) each(ctx context.Context, req *pb.ListNasesRequest, show func([]*pb.Nas) error) error {
	client, err := a.nases()
	if err != nil {
		return err
	}
	return eachPage(ctx, func(ctx context.Context, token string) ([]*pb.Nas, string, error) {
		ctx, cancel := a.bounded(ctx)
		defer cancel()
		req.PageToken = token
		page, err := client.ListNases(ctx, req)
		return page.GetNases(), page.GetNextPageToken(), err
	}, show)
}

var nasHeader = []string{"CLIENT", "NAS", "SUBSCRIBERS", "CLOCK", "HEARD", "RESTARTED", "ENDED", "SAME AS", "REFUSED"}

func (a nasCommands) row(n *pb.Nas) []string {
	return []string{
		n.GetClient(), n.GetName(), number(n.GetSubscribers()), clockText(n),
		a.age(n.GetLastHeardAt()), a.age(n.GetLastRestartAt()), endedBy(n), sameAs(n), refused(n),
	}
}

// endedBy is the number of subscribers that the last restart ended.
func endedBy(n *pb.Nas) string {
	if n.GetRestartEndings() == nil {
		return none
	}
	return number(n.GetRestartEndings().GetSubscribers())
}

// clockText describes the state of a NAS's clock.
func clockText(n *pb.Nas) string {
	if n.GetClockOffset() == nil {
		return none
	}
	offset := n.GetClockOffset().AsDuration()
	text := "ok"
	switch {
	case offset > clockInOrder:
		text = span(offset) + " ahead"
	case offset < -clockInOrder:
		text = span(-offset) + " behind"
	}
	if n.GetClockUnheeded() {
		text += ", unheeded"
	}
	return text
}

func sameAs(n *pb.Nas) string {
	if n.GetSameAs() == nil {
		return none
	}
	return n.GetSameAs().GetName() + " of " + n.GetSameAs().GetClient()
}

// refused writes refused events by verdict, the most frequent first.
func refused(n *pb.Nas) string {
	counts := n.GetRefused()
	verdicts := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	for i, v := range verdicts {
		verdicts[i] = strconv.FormatUint(counts[v], 10) + " " + v
	}
	return or(strings.Join(verdicts, ", "), none)
}

func (a nasCommands) getCommand() *cobra.Command {
	req := &pb.GetNasRequest{}
	c := &cobra.Command{
		Use:               "get NAME",
		Short:             "Show one NAS in full",
		Example:           "  sessionctl nas get bng1.example\n  sessionctl nas get MikroTik --client site2",
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: a.completeNAS,
		RunE: func(c *cobra.Command, given []string) error {
			if req.Name = given[0]; req.GetName() == "" {
				return usagef("NAME is empty")
			}
			client, err := a.nases()
			if err != nil {
				return err
			}
			ctx, cancel := a.bounded(c.Context())
			defer cancel()
			res, err := client.GetNas(ctx, req)
			if err != nil {
				return err
			}
			return a.show(res.GetNas())
		},
	}
	c.Flags().StringVar(&req.Client, "client", "", "the RADIUS `client` or realm, where several have a NAS of that name")
	a.completeNASFlags(c)
	return c
}

func (a nasCommands) show(n *pb.Nas) error {
	return a.details(n, [][2]string{
		{"NAS", n.GetName()},
		{"RADIUS client", n.GetClient()},
		{"Same as", sameAs(n)},
		{"Subscribers", number(n.GetSubscribers())},
		{"Clock", clockText(n)},
		{"Last heard", a.moment(n.GetLastHeardAt())},
		{"Last restart", a.moment(n.GetLastRestartAt())},
		{"It ended", a.restartEndings(n)},
		{"Refused events", refused(n)},
	})
}

// restartEndings tells whom the last restart of a NAS ended, as far as the daemon knows.
func (a nasCommands) restartEndings(n *pb.Nas) string {
	e := n.GetRestartEndings()
	if e == nil {
		return "nobody since the daemon started"
	}
	return plural(e.GetSubscribers(), "subscriber") + ", the last " + a.moment(e.GetLastEndTime()) +
		"; `sessionctl subscriber history --nas " + n.GetName() + " --reason nas-restart` names them"
}
