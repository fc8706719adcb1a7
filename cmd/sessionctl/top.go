package main

import (
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
)

// deskCommands answer questions of a NOC's desk: who is busiest, and what is the matter with a
// customer.
type deskCommands struct{ *app }

// topMeasures are the values of --by.
var topMeasures = map[string]pb.TopBy{
	"sessions": pb.TopBy_TOP_BY_SESSIONS,
	"rate":     pb.TopBy_TOP_BY_NEW_SESSIONS,
	"ports":    pb.TopBy_TOP_BY_PORTS,
	"octets":   pb.TopBy_TOP_BY_OCTETS,
	"blocks":   pb.TopBy_TOP_BY_BLOCKS,
}

// topTitles are the titles of the first column, by measure.
var topTitles = map[pb.TopBy]string{
	pb.TopBy_TOP_BY_SESSIONS: "SESSIONS", pb.TopBy_TOP_BY_NEW_SESSIONS: "NEW/S", pb.TopBy_TOP_BY_PORTS: "PORTS",
	pb.TopBy_TOP_BY_OCTETS: "OCTETS", pb.TopBy_TOP_BY_BLOCKS: "BLOCKS",
}

func (a deskCommands) topCommand() *cobra.Command {
	req := &pb.ListTopSubscribersRequest{}
	var by string
	var window time.Duration
	c := &cobra.Command{
		Use:   "top",
		Short: "Show the busiest subscribers",
		Example: "  sessionctl top --by rate\n" +
			"  sessionctl top --by ports --outside 198.51.100.0/28\n" +
			"  sessionctl top --watch",
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			var known bool
			if req.By, known = topMeasures[by]; !known {
				return usagef("--by: %q is none of sessions, rate, ports, octets, blocks", by)
			}
			if req.GetPageSize() < 1 || req.GetPageSize() > pageSize {
				return usagef("--number must be 1 to %d", pageSize)
			}
			if err := prefix("--outside", req.GetOutside()); err != nil {
				return err
			}
			if window < time.Second || window > 30*time.Second {
				return usagef("--window must be 1s to 30s")
			}
			req.Window = durationpb.New(window)
			return a.top(c, req)
		},
	}
	flags := c.Flags()
	flags.StringVar(&by, "by", "sessions", "the `measure`: sessions (now), rate (new sessions a second), ports (in use), octets (of the accounting session), blocks (where several)")
	flags.Int32VarP(&req.PageSize, "number", "n", 20, "show so `many`")
	flags.Int32Var(&req.PageSize, "limit", 20, "as --number, as in lists: show so `many`")
	flags.StringVar(&req.Group, "group", "", "only this `group`")
	flags.StringVar(&req.Outside, "outside", "", "only those of this outside `address` or prefix")
	flags.DurationVar(&window, "window", 2*time.Second, "measure --by rate for this `time`")
	a.completePicks(c)
	complete(c, "by", "sessions", "rate", "ports", "octets", "blocks")
	complete(c, "number")
	complete(c, "limit")
	complete(c, "window")
	a.watchFlag(c)
	return c
}

func (a deskCommands) top(c *cobra.Command, req *pb.ListTopSubscribersRequest) error {
	client, err := a.desk()
	if err != nil {
		return err
	}
	ctx, cancel := a.bounded(c.Context())
	defer cancel()
	res, err := client.ListTopSubscribers(ctx, req)
	if err != nil {
		return err
	}
	header := []string{topTitles[req.GetBy()], "GROUP", "INSIDE", "USER", "NAS", "OUTSIDE"}
	if req.GetBy() != pb.TopBy_TOP_BY_BLOCKS {
		header = append(header, "BLOCKS")
	}
	if req.GetBy() != pb.TopBy_TOP_BY_SESSIONS {
		header = append(header, "SESSIONS")
	}
	if req.GetBy() != pb.TopBy_TOP_BY_OCTETS {
		header = append(header, "OCTETS")
	}
	out := newList(&a.printer, header, func(t *pb.TopSubscriber) []string { return topRow(req.GetBy(), t) })
	out.nobody = "no such subscriber has any"
	if err := out.addAll(res.GetSubscribers()); err != nil {
		return err
	}
	return out.end()
}

func topRow(by pb.TopBy, t *pb.TopSubscriber) []string {
	row := []string{
		topValue(by, t.GetValue()), or(t.GetGroup(), none), t.GetInsideAddress(), or(t.GetUserName(), none), or(t.GetNas(), none),
		or(t.GetOutsideAddress(), none),
	}
	if by != pb.TopBy_TOP_BY_BLOCKS {
		row = append(row, number(t.GetBlocks()))
	}
	if by != pb.TopBy_TOP_BY_SESSIONS {
		row = append(row, number(t.GetSessions()))
	}
	if by != pb.TopBy_TOP_BY_OCTETS {
		row = append(row, octets(t.GetOctets()))
	}
	return row
}

func topValue(by pb.TopBy, value float64) string {
	switch by {
	case pb.TopBy_TOP_BY_OCTETS:
		return octets(uint64(value))
	case pb.TopBy_TOP_BY_NEW_SESSIONS:
		return strings.TrimSuffix(strconv.FormatFloat(value, 'f', 1, 64), ".0")
	}
	return strconv.FormatFloat(value, 'f', 0, 64)
}
