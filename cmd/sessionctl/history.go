package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
)

func (a subscriberCommands) historyCommand() *cobra.Command {
	req := &pb.ListEndingsRequest{PageSize: pageSize}
	var reason, from, to string
	c := &cobra.Command{
		Use:   "history [USER | ADDRESS]",
		Short: "Show when sessions ended, why, and what their removal found, the latest first",
		Long: `history shows the newest 50,000 ends of sessions, which sessiond keeps in memory: a
restart keeps those alone whose blocks are still in their hold. A line says
since when all are known. Of one USER or ADDRESS a table is followed by what
happened step by step, with the ports of the history, if the daemon keeps one.`,
		Example: "  sessionctl subscriber history alice\n" +
			"  sessionctl subscriber history --nas bng1 --reason nas-restart --from -1h\n" +
			"  sessionctl subscriber history --outside 198.51.100.7 --from 14:00 --to 15:30",
		Args:              args(cobra.MaximumNArgs(1)),
		ValidArgsFunction: a.completeInside,
		RunE: func(c *cobra.Command, given []string) error {
			if len(given) == 1 {
				inside, user := customer(given[0])
				if inside != "" && req.GetInside() != "" {
					return usagef("give either ADDRESS or --inside")
				}
				req.UserName = user
				if inside != "" {
					req.Inside = inside
				}
			}
			if err := a.historyFilter(req, reason, from, to); err != nil {
				return err
			}
			return a.history(c.Context(), req, len(given) == 1)
		},
	}
	flags := c.Flags()
	flags.StringVar(&req.Group, "group", "", "only this `group`")
	flags.StringVar(&req.Nas, "nas", "", "only subscribers of this `NAS`")
	flags.StringVar(&req.Inside, "inside", "", "only inside addresses in this `prefix`")
	flags.StringVar(&req.Outside, "outside", "", "only those that had this outside `address` or prefix")
	flags.StringVar(&reason, "reason", "", "only this `reason`: "+strings.Join(endReasons(), ", "))
	flags.StringVar(&from, "from", "", "ended at this `time` or later: "+timeForms)
	flags.StringVar(&to, "to", "", "ended before this `time`")
	a.completePicks(c)
	complete(c, "reason", endReasons()...)
	complete(c, "from")
	complete(c, "to")
	return c
}

// historyFilter adds the flags that are not texts.
func (a subscriberCommands) historyFilter(req *pb.ListEndingsRequest, reason, from, to string) (err error) {
	for _, p := range []struct{ flag, text string }{{"--inside", req.GetInside()}, {"--outside", req.GetOutside()}} {
		if err := prefix(p.flag, p.text); err != nil {
			return err
		}
	}
	if reason != "" {
		n, known := pb.Reason_value["REASON_"+strings.ToUpper(strings.ReplaceAll(reason, "-", "_"))]
		if !known || n == 0 {
			return usagef("--reason: %q is none of %s", reason, strings.Join(endReasons(), ", "))
		}
		req.Reason = pb.Reason(n)
	}
	if req.StartTime, err = timestamp("--from", from, a.here()); err != nil {
		return err
	}
	req.EndTime, err = timestamp("--to", to, a.here())
	return err
}

// endReasons are the values of --reason.
func endReasons() (names []string) {
	for n := int32(1); pb.Reason_name[n] != ""; n++ {
		names = append(names, strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(pb.Reason_name[n], "REASON_")), "_", "-"))
	}
	return names
}

var historyHeader = []string{"ENDED", "USER", "INSIDE", "NAS", "REASON", "OUTSIDE", "PORTS", "ONLINE", "UP", "DOWN", "REMOVAL"}

func (a subscriberCommands) history(ctx context.Context, req *pb.ListEndingsRequest, one bool) error {
	client, err := a.desk()
	if err != nil {
		return err
	}
	out := newList(&a.printer, historyHeader, a.endingRow)
	out.nobody = "no such end is known"
	var since *timestamppb.Timestamp
	var endings []*pb.Ending // for the timeline
	err = eachPage(ctx, func(ctx context.Context, token string) (*pb.ListEndingsResponse, string, error) {
		ctx, cancel := a.bounded(ctx)
		defer cancel()
		req.PageToken = token
		page, err := client.ListEndings(ctx, req)
		return page, page.GetNextPageToken(), err
	}, func(page *pb.ListEndingsResponse) error {
		since = page.GetCompleteSinceTime()
		if one && a.forPeople() {
			endings = append(endings, page.GetEndings()...)
		}
		return out.addAll(page.GetEndings())
	})
	if err != nil {
		return err
	}
	if err := out.end(); err != nil || !a.forPeople() {
		return err
	}
	if _, err = fmt.Fprintf(a.stdout, "\nAll ends since %s are known; of earlier ones, some.\n", a.moment(since)); err != nil || !one {
		return err
	}
	return a.timeline(ctx, req, endings)
}

func (a subscriberCommands) endingRow(e *pb.Ending) []string {
	online := none
	if e.GetStartTime() != nil {
		online = span(e.GetEndTime().AsTime().Sub(e.GetStartTime().AsTime()))
	}
	b := &pb.Binding{Blocks: e.GetBlocks()}
	if len(e.GetBlocks()) > 0 {
		b.FirstPort, b.LastPort = e.GetBlocks()[0].GetFirstPort(), e.GetBlocks()[0].GetLastPort()
	} else {
		b = nil
	}
	return []string{
		a.age(e.GetEndTime()) + " ago", or(e.GetUserName(), none), e.GetInsideAddress(), or(e.GetNas(), none),
		endReason(e.GetReason(), e.GetTerminateCause()), or(e.GetOutsideAddress(), none), ports(b), online,
		octets(e.GetInputOctets()), octets(e.GetOutputOctets()), removalResult(e),
	}
}

// terminateCauses are the names of RFC 2866 section 5.10.
var terminateCauses = [...]string{
	1: "User-Request", "Lost-Carrier", "Lost-Service", "Idle-Timeout", "Session-Timeout", "Admin-Reset", "Admin-Reboot", "Port-Error",
	"NAS-Error", "NAS-Request", "NAS-Reboot", "Port-Unneeded", "Port-Preempted", "Port-Suspended", "Service-Unavailable", "Callback",
	"User-Error", "Host-Request",
}

// endReason writes why something ended, with the cause that the NAS gave.
func endReason(reason pb.Reason, cause uint32) string {
	text := reasonText(reason)
	switch {
	case cause == 0:
		return text
	case int(cause) < len(terminateCauses):
		return text + " (" + terminateCauses[cause] + ")"
	}
	return fmt.Sprintf("%s (cause %d)", text, cause)
}
