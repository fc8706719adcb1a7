package main

import (
	"context"
	"errors"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
)

// sessionCommands are the commands that show and end NAT sessions.
type sessionCommands struct{ *app }

func (a sessionCommands) command() *cobra.Command {
	c := group("session", "NAT sessions: the kernel's conntrack entries of subscribers",
		a.listCommand(), a.countCommand(), a.killCommand())
	c.Aliases = []string{"sessions"}
	return c
}

// sessionFlags are the flags that select sessions.
type sessionFlags struct{ group, inside, outside, remote, protocol string }

func (f *sessionFlags) register(k completer, c *cobra.Command) {
	flags := c.Flags()
	flags.StringVar(&f.group, "group", "", "only this `group`")
	flags.StringVar(&f.inside, "inside", "", "only this inside `A[:P]`; A may be a prefix")
	flags.StringVar(&f.outside, "outside", "", "only this outside `A[:P]`; A may be a prefix")
	flags.StringVar(&f.remote, "remote", "", "only this remote `A[:P]`; A may be a prefix")
	flags.StringVar(&f.protocol, "protocol", "", "only this `protocol`: tcp, udp, icmp or a number")
	k.completePicks(c)
	complete(c, "protocol", "tcp", "udp", "icmp")
}

func (f *sessionFlags) filter() (*pb.SessionFilter, error) {
	m := &pb.SessionFilter{Group: f.group}
	var err error
	if m.Inside, m.InsidePort, err = endpoint("--inside", f.inside); err != nil {
		return nil, err
	}
	if m.Outside, m.OutsidePort, err = endpoint("--outside", f.outside); err != nil {
		return nil, err
	}
	if m.Remote, m.RemotePort, err = endpoint("--remote", f.remote); err != nil {
		return nil, err
	}
	m.Protocol, err = protocol(f.protocol)
	return m, err
}

func (a sessionCommands) listCommand() *cobra.Command {
	var pick sessionFlags
	c := &cobra.Command{
		Use:     "list",
		Short:   "List the NAT sessions",
		Example: "  sessionctl session list --inside 100.64.0.7 --protocol tcp\n  sessionctl session list --remote 203.0.113.5:443",
		Args:    args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			filter, err := pick.filter()
			if err != nil {
				return err
			}
			return a.list(c.Context(), filter)
		},
	}
	pick.register(a.completer, c)
	a.listFlags(c, sessionHeader)
	return c
}

func (a sessionCommands) list(ctx context.Context, filter *pb.SessionFilter) error {
	client, err := a.sessions()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.ListSessions(ctx, &pb.ListSessionsRequest{Filter: filter})
	if err != nil {
		return err
	}
	out := newList(&a.printer, sessionHeader, sessionRow)
	out.leastImportant("PACKETS", "BEGUN BY", "EXPIRES", "BYTES")
	out.nobody = "no such session"
	defer a.progress.begin()()
	for {
		res, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return out.end()
		}
		if err != nil {
			return errors.Join(out.end(), err)
		}
		if err := out.addAll(res.GetSessions()); err != nil {
			return err
		}
	}
}

var sessionHeader = []string{"PROTO", "INSIDE", "OUTSIDE", "REMOTE", "STATE", "BEGUN BY", "EXPIRES", "PACKETS", "BYTES"}

func sessionRow(s *pb.Session) []string {
	return []string{
		protocolName(s.GetProtocol()),
		addressPort(s.GetInsideAddress(), s.GetInsidePort()),
		addressPort(s.GetOutsideAddress(), s.GetOutsidePort()),
		addressPort(s.GetRemoteAddress(), s.GetRemotePort()),
		s.GetState(), beginner(s.GetDirection()), expiry(s),
		strconv.FormatUint(s.GetPackets(), 10), octets(s.GetBytes()),
	}
}

// expiry returns the time until a session idles out; the kernel does not tell that of one that
// a flowtable carries.
func expiry(s *pb.Session) string {
	if s.GetExpiresIn() == nil {
		return "-"
	}
	return span(s.GetExpiresIn().AsDuration())
}

func addressPort(addr string, port uint32) string {
	if port == 0 {
		return addr
	}
	return addr + ":" + number(port)
}

// beginner returns the side that sent the first packet.
func beginner(d pb.Direction) string {
	switch d {
	case pb.Direction_DIRECTION_OUTBOUND:
		return "subscriber"
	case pb.Direction_DIRECTION_INBOUND:
		return "remote"
	}
	return strings.TrimPrefix(d.String(), "DIRECTION_")
}

func (a sessionCommands) countCommand() *cobra.Command {
	var pick sessionFlags
	c := &cobra.Command{
		Use:     "count",
		Short:   "Count the NAT sessions",
		Example: "  sessionctl session count --inside 100.64.0.7 --protocol tcp",
		Args:    args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			filter, err := pick.filter()
			if err != nil {
				return err
			}
			res, err := a.count(c.Context(), filter)
			if err != nil {
				return err
			}
			return a.answer(res, number(res.GetCount()))
		},
	}
	pick.register(a.completer, c)
	return c
}

func (a sessionCommands) count(ctx context.Context, filter *pb.SessionFilter) (*pb.CountSessionsResponse, error) {
	client, err := a.sessions()
	if err != nil {
		return nil, err
	}
	ctx, cancel := a.bounded(ctx)
	defer cancel()
	return client.CountSessions(ctx, &pb.CountSessionsRequest{Filter: filter})
}

func (a sessionCommands) killCommand() *cobra.Command {
	var pick sessionFlags
	var yes bool
	var order orderFlags
	c := &cobra.Command{
		Use:   "kill",
		Short: "End NAT sessions; their subscribers stay online",
		Long: "End NAT sessions. Their subscribers stay online and may begin new sessions at\n" +
			"once. To end everybody's, say --inside 0.0.0.0/0.",
		Example: "  sessionctl session kill --inside 100.64.0.7 --remote 203.0.113.5:443",
		Args:    args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			filter, err := pick.filter()
			if err != nil {
				return err
			}
			if proto.Equal(filter, &pb.SessionFilter{}) {
				return usagef("say which sessions: --inside, --outside, --remote, --protocol or --group")
			}
			err = a.confirm(yes || order.validateOnly, func() (string, error) { return a.killQuestion(c.Context(), filter) })
			if err != nil {
				return err
			}
			return a.kill(c.Context(), filter, order)
		},
	}
	pick.register(a.completer, c)
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	order.register(c)
	return c
}

var errNoSession = errors.New("no such session; see `sessionctl session list`")

func (a sessionCommands) killQuestion(ctx context.Context, filter *pb.SessionFilter) (string, error) {
	res, err := a.count(ctx, filter)
	if err != nil {
		return "", err
	}
	if res.GetCount() == 0 {
		return "", errNoSession
	}
	return "End " + plural(res.GetCount(), "NAT session") + "?", nil
}

func (a sessionCommands) kill(ctx context.Context, filter *pb.SessionFilter, order orderFlags) error {
	client, err := a.sessions()
	if err != nil {
		return err
	}
	ctx, cancel := a.bounded(ctx)
	defer cancel()
	res, err := client.TerminateSessions(ctx, &pb.TerminateSessionsRequest{
		Filter: filter, Reason: order.reason, RequestId: order.requestID, ValidateOnly: order.validateOnly,
	})
	if err != nil {
		return err
	}
	if res.GetTerminated() == 0 {
		return errNoSession
	}
	if order.validateOnly {
		return a.tried(res, "end %s of %s", plural(res.GetTerminated(), "session"), plural(res.GetSubscribers(), "subscriber"))
	}
	return a.answer(res, "ended "+plural(res.GetTerminated(), "session"))
}

func plural(n uint32, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return number(n) + " " + noun + "s"
}
