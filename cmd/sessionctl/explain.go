package main

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
)

func (a deskCommands) explainCommand() *cobra.Command {
	req := &pb.ExplainSubscriberRequest{}
	c := &cobra.Command{
		Use:   "explain {ADDRESS | USER}",
		Short: "Show everything about one customer, what stands out, and what to do",
		Long: `explain shows one customer on one screen: since when it is online and through which
BNG, its outside address and ports, its limits and how near it is to them, its
sessions, what happens to a new one, the last end of a session with its reason
and receipt, and what to do next.

ADDRESS is the inside address. Of an outside address and port, ` + "`sessionctl binding\nlookup`" + ` tells the inside address first.`,
		Example:           "  sessionctl explain 100.64.0.7\n  sessionctl explain alice",
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: a.completeInside,
		RunE: func(c *cobra.Command, given []string) error {
			req.InsideAddress, req.UserName = customer(given[0])
			client, err := a.desk()
			if err != nil {
				return err
			}
			ctx, cancel := a.bounded(c.Context())
			defer cancel()
			res, err := client.ExplainSubscriber(ctx, req)
			if err != nil {
				return err
			}
			for i, e := range res.GetExplanations() {
				if err := a.explanation(i, e); err != nil {
					return err
				}
			}
			return nil
		},
	}
	c.Flags().StringVar(&req.Group, "group", "", "the `group`, where groups share inside addresses")
	a.completeGroups(c)
	return c
}

// customer tells an inside address from a User-Name.
func customer(text string) (inside, user string) {
	if a, err := netip.ParseAddr(text); err == nil && a.Is4() {
		return text, ""
	}
	return "", text
}

func (a deskCommands) explanation(i int, e *pb.Explanation) error {
	if !a.forPeople() {
		return a.message(e)
	}
	if i > 0 {
		fmt.Fprintln(a.stdout)
	}
	for _, line := range e.GetAdvice() {
		fmt.Fprintln(a.stdout, "* "+a.broken(line, 2))
	}
	fmt.Fprintln(a.stdout)
	if err := a.fields(a.explained(e)); err != nil {
		return err
	}
	if err := a.limits(e); err != nil {
		return err
	}
	return a.explainDrops(e)
}

// explained are the lines of an explanation.
func (a deskCommands) explained(e *pb.Explanation) [][2]string {
	s, b := e.GetSubscriber(), e.GetBinding()
	lines := [][2]string{{"Inside address", e.GetInsideAddress() + " of group " + or(e.GetGroup(), none)}}
	if s == nil {
		lines = append(lines, [2]string{"Online", "no"})
	} else {
		lines = append(lines, [][2]string{
			{"User", or(s.GetUserName(), none)},
			{"Online since", a.moment(s.GetStartedAt())},
			{"Last heard of", a.moment(s.GetUpdatedAt())},
			{"Traffic", octets(s.GetInputOctets()) + " up, " + octets(s.GetOutputOctets()) + " down"},
		}...)
	}
	if n := e.GetNas(); n != nil {
		lines = append(lines, [2]string{"BNG", n.GetName() + " of " + n.GetClient() + ", heard " + a.age(n.GetLastHeardAt()) + " ago, restarted " + a.moment(n.GetLastRestartAt())})
	} else if s != nil {
		lines = append(lines, [2]string{"BNG", nasText(s)})
	}
	if b != nil {
		lines = append(lines, [][2]string{
			{"Outside address", b.GetOutsideAddress()},
			{"Ports", ports(b)},
			{"State", bindingState(b)},
			{"Ports in use", portUse(b.GetPortsInUse()) + "; at most " + portUse(b.GetPortsPeak())},
		}...)
	}
	if c := e.GetSessions(); s != nil || b != nil {
		lines = append(lines, [2]string{"NAT sessions", fmt.Sprintf("%d TCP, %d UDP, %d ICMP, %d other", c.GetTcp(), c.GetUdp(), c.GetIcmp(), c.GetOther())})
	}
	lines = append(lines, [2]string{"A new session", newSession(e.GetNewSession())})
	for _, m := range e.GetMappings() {
		lines = append(lines, [2]string{"Mapping", fmt.Sprintf("%s %s:%d, inside port %d", protocolName(m.GetProtocol()), m.GetOutsideAddress(), m.GetOutsidePort(), m.GetInsidePort())})
	}
	return append(lines, [2]string{"Last end", a.lastEnd(e)})
}

func newSession(n *pb.NewSession) string {
	if n.GetPasses() {
		return "passes"
	}
	return "is dropped: " + n.GetDropReason() + ", " + n.GetMeaning()
}

// portUse writes ports by protocol.
func portUse(u *pb.PortUse) string {
	return fmt.Sprintf("%d TCP, %d UDP, %d ICMP", u.GetTcp(), u.GetUdp(), u.GetIcmp())
}

// lastEnd writes the last end of a session, or how far back none is known.
func (a deskCommands) lastEnd(e *pb.Explanation) string {
	end := e.GetLastEnding()
	if end == nil {
		return "none since " + a.moment(e.GetEndingsCompleteSinceTime()) + "; earlier ones are not kept"
	}
	whose := ""
	if user := end.GetUserName(); user != e.GetSubscriber().GetUserName() {
		whose = "user " + or(user, none) + ", "
	}
	return a.moment(end.GetEndTime()) + ": " + whose + endReason(end.GetReason(), end.GetTerminateCause()) + ", " + removalResult(end)
}

// removalResult tells the result of a removal.
func removalResult(e *pb.Ending) string {
	r := e.GetReceipt()
	switch {
	case e.GetResumeTime() != nil:
		return "back " + span(e.GetResumeTime().AsTime().Sub(e.GetEndTime().AsTime())) + " later, nothing removed"
	case e.GetOutsideAddress() == "":
		return "had no port block"
	case r == nil:
		return "not removed yet"
	}
	return fmt.Sprintf("%s removed, by %s", plural(r.GetSessionsDeleted(), "session"), strings.ToLower(strings.TrimPrefix(r.GetProof().String(), "PROOF_")))
}

// limits prints the limits of the customer.
func (a deskCommands) limits(e *pb.Explanation) error {
	if len(e.GetLimits()) == 0 {
		return nil
	}
	fmt.Fprintln(a.stdout)
	out := newList(&a.printer, []string{"LIMIT", "USED", "OF", "LAST REFUSED"}, func(l *pb.LimitUse) []string {
		used := none
		if l.Used != nil {
			used = number(l.GetUsed())
		}
		return []string{l.GetLimit(), used, number(l.GetMost()), a.moment(l.GetRefuseTime())}
	})
	if err := out.addAll(e.GetLimits()); err != nil {
		return err
	}
	return out.end()
}

// explainDrops prints the drops of the machine that can concern the customer.
func (a deskCommands) explainDrops(e *pb.Explanation) error {
	if len(e.GetDrops()) == 0 {
		return nil
	}
	fmt.Fprintln(a.stdout, "\nDropped packets of all subscribers, for reasons that can concern this one:")
	out := newList(&a.printer, []string{"REASON", "DIRECTION", "PACKETS", "MEANING"}, func(d *pb.Drop) []string {
		return []string{d.GetReason(), d.GetDirection(), fmt.Sprint(d.GetPackets()), d.GetMeaning()}
	})
	if err := out.addAll(e.GetDrops()); err != nil {
		return err
	}
	return out.end()
}
