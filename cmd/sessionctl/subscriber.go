package main

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
)

// pageSize is the page size of lists: the daemon's maximum.
const pageSize = 1000

// subscriberCommands are the commands that show, watch, delete and put subscribers.
type subscriberCommands struct{ *app }

func (a subscriberCommands) command() *cobra.Command {
	c := group("subscriber", "Who is online",
		a.listCommand(), a.getCommand(), a.deleteCommand(), a.putCommand(), a.historyCommand())
	c.Aliases = []string{"subscribers", "sub"}
	return c
}

func (a subscriberCommands) listCommand() *cobra.Command {
	var pick subscriberFlags
	var order string
	c := &cobra.Command{
		Use:   "list",
		Short: "List the subscribers online",
		Example: "  sessionctl subscriber list --nas bng1.example --sort -down --limit 20\n" +
			"  sessionctl subscriber list --inside 100.64.3.0/24 -o csv\n" +
			"  sessionctl subscriber list --remote 203.0.113.5:443\n" +
			"  sessionctl subscriber list --watch=5s\n" +
			"  sessionctl subscriber list --user-prefix ali --order-by user_name",
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			out := newList(&a.printer, subscriberHeader, a.row)
			out.leastImportant("GROUP", "SEEN", "PORTS", "NAS", "ONLINE", "DOWN", "UP")
			out.nobody = "no such subscriber is online"
			if err := a.each(c.Context(), pick, order, out.addAll); err != nil {
				return err
			}
			return out.end()
		},
	}
	pick.registerAll(c.Flags())
	c.Flags().StringVar(&order, "order-by", "", "the `order`: inside_address (default) or user_name")
	a.completePicks(c)
	a.listFlags(c, subscriberHeader)
	complete(c, "order-by", "inside_address", "user_name")
	return c
}

// eachSubscriber pages through all subscribers that the flags select.
func (a subscriberCommands) each(ctx context.Context, pick subscriberFlags, order string, show func([]*pb.Subscriber) error) error {
	nat, err := pick.check()
	if err != nil {
		return err
	}
	client, err := a.subscribers()
	if err != nil {
		return err
	}
	req := &pb.ListSubscribersRequest{
		PageSize: pageSize, Group: pick.group, Nas: pick.nas, UserName: pick.user, Inside: pick.inside,
		UserNamePrefix: pick.userPrefix, CallingStationId: pick.station, AcctSessionId: pick.session,
		Outside: nat.outside, OutsidePort: nat.outsidePort, Remote: nat.remote, RemotePort: nat.remotePort, State: nat.state, OrderBy: order,
	}
	return eachPage(ctx, func(ctx context.Context, token string) ([]*pb.Subscriber, string, error) {
		ctx, cancel := a.bounded(ctx)
		defer cancel()
		req.PageToken = token
		page, err := client.ListSubscribers(ctx, req)
		return page.GetSubscribers(), page.GetNextPageToken(), err
	}, show)
}

var subscriberHeader = []string{"GROUP", "INSIDE", "USER", "NAS", "OUTSIDE", "PORTS", "STATE", "SESSIONS", "ONLINE", "SEEN", "UP", "DOWN"}

func (a subscriberCommands) row(s *pb.Subscriber) []string {
	b := s.GetBinding()
	return []string{
		s.GetGroup(), s.GetInsideAddress(), or(s.GetUserName(), none), or(s.GetNas(), none),
		or(b.GetOutsideAddress(), none), ports(b), state(s), number(b.GetSessions()),
		a.age(s.GetStartedAt()), a.age(s.GetUpdatedAt()), octets(s.GetInputOctets()), octets(s.GetOutputOctets()),
	}
}

func (a subscriberCommands) getCommand() *cobra.Command {
	var group string
	c := &cobra.Command{
		Use:               "get ADDRESS",
		Short:             "Show one subscriber in full",
		Example:           "  sessionctl subscriber get 100.64.0.7\n  sessionctl subscriber get 100.64.0.7 -o yaml",
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: a.completeInside,
		RunE: func(c *cobra.Command, given []string) error {
			sub, err := a.one(c.Context(), given[0], group)
			if err != nil {
				return err
			}
			return a.show(sub)
		},
	}
	c.Flags().StringVar(&group, "group", "", "the `group`, where groups share inside addresses")
	a.completeGroups(c)
	return c
}

func (a subscriberCommands) one(ctx context.Context, inside, group string) (*pb.Subscriber, error) {
	inside, err := address(inside)
	if err != nil {
		return nil, err
	}
	client, err := a.subscribers()
	if err != nil {
		return nil, err
	}
	ctx, cancel := a.bounded(ctx)
	defer cancel()
	res, err := client.GetSubscriber(ctx, &pb.GetSubscriberRequest{InsideAddress: inside, Group: group})
	return res.GetSubscriber(), err
}

func (a subscriberCommands) show(s *pb.Subscriber) error {
	b := s.GetBinding()
	return a.details(s, [][2]string{
		{"Inside address", s.GetInsideAddress()},
		{"Group", s.GetGroup()},
		{"User", or(s.GetUserName(), none)},
		{"Calling station", or(s.GetCallingStationId(), none)},
		{"NAS", nasText(s)},
		{"RADIUS client", or(s.GetClient(), "none, put by hand")},
		{"Session", or(s.GetAcctSessionId(), none)},
		{"Class", or(class(s), none)},
		{"Started", a.moment(s.GetStartedAt())},
		{"Last heard of", a.moment(s.GetUpdatedAt())},
		{"Expires", a.expiry(s.GetExpiresAt())},
		{"IPv6", or(ipv6(s), none)},
		{"Traffic", octets(s.GetInputOctets()) + " up, " + octets(s.GetOutputOctets()) + " down"},
		{"State", state(s)},
		{"Outside address", or(b.GetOutsideAddress(), none)},
		{"Ports", ports(b)},
		{"Bound", a.moment(b.GetAllocatedAt())},
		{"NAT sessions", number(b.GetSessions())},
	})
}

func (a subscriberCommands) expiry(t *timestamppb.Timestamp) string {
	if t == nil {
		return "never"
	}
	return a.moment(t)
}

func nasText(s *pb.Subscriber) string {
	if s.GetNasAddress() == "" || s.GetNasAddress() == s.GetNas() {
		return or(s.GetNas(), none)
	}
	return s.GetNas() + " (" + s.GetNasAddress() + ")"
}

// class returns all Class attributes of the session.
func class(s *pb.Subscriber) string {
	return strings.Join(append([]string{s.GetClass()}, s.GetMoreClasses()...), ", ")
}

// ipv6 returns the session's IPv6 addresses and prefixes, which are not
// translated.
func ipv6(s *pb.Subscriber) string {
	all := append(slices.Clone(s.GetFramedIpv6Addresses()), s.GetFramedIpv6Prefixes()...)
	for _, p := range s.GetDelegatedPrefixes() {
		all = append(all, p+" (delegated)")
	}
	return strings.Join(all, ", ")
}

// state is one word for the subscriber's NAT state.
func state(s *pb.Subscriber) string {
	switch {
	case s.GetPending():
		return "PENDING"
	case s.GetBinding() == nil:
		return none
	case s.GetRemovalHeld() != pb.Reason_REASON_UNSPECIFIED:
		return bindingState(s.GetBinding()) + " (removal held: " + reasonText(s.GetRemovalHeld()) + ")"
	case s.GetUnconfirmed():
		return bindingState(s.GetBinding()) + " (unconfirmed)"
	}
	return bindingState(s.GetBinding())
}
