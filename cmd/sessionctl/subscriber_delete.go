package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
)

func (a subscriberCommands) deleteCommand() *cobra.Command {
	var pick subscriberFlags
	var yes bool
	var order orderFlags
	c := &cobra.Command{
		Use:   "delete {ADDRESS | --user U | --nas N | --inside PREFIX}",
		Short: "Delete subscriber records: ends their NAT sessions and frees their ports",
		Example: "  sessionctl subscriber delete 100.64.0.7\n" +
			"  sessionctl subscriber delete --nas bng1.example --yes\n" +
			"  sessionctl subscriber delete --remote 203.0.113.5:443 --validate-only",
		Args:              args(cobra.MaximumNArgs(1)),
		ValidArgsFunction: a.completeInside,
		RunE: func(c *cobra.Command, given []string) error {
			if err := pick.narrow(given); err != nil {
				return err
			}
			err := a.confirm(yes || order.validateOnly, func() (string, error) { return a.deleteQuestion(c.Context(), pick) })
			if err != nil {
				return err
			}
			return a.delete(c.Context(), pick, order)
		},
	}
	pick.registerAll(c.Flags())
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	order.register(c)
	a.completePicks(c)
	return c
}

// narrow adds the address argument of delete to the flags, and refuses an
// unlimited deletion.
func (f *subscriberFlags) narrow(given []string) error {
	if len(given) == 1 {
		inside, err := address(given[0])
		if err != nil {
			return err
		}
		if f.inside != "" {
			return usagef("give either ADDRESS or --inside")
		}
		f.inside = inside
	}
	if *f == (subscriberFlags{group: f.group}) {
		return usagef("say whom to delete: ADDRESS, --user, --nas, --inside or another flag")
	}
	_, err := f.check()
	return err
}

func (a subscriberCommands) deleteQuestion(ctx context.Context, pick subscriberFlags) (string, error) {
	n, first := 0, (*pb.Subscriber)(nil)
	err := a.each(ctx, pick, "", func(page []*pb.Subscriber) error {
		if n == 0 && len(page) > 0 {
			first = page[0]
		}
		n += len(page)
		return nil
	})
	switch {
	case err != nil:
		return "", err
	case n == 0:
		return "", errNobody
	case n == 1:
		return fmt.Sprintf("Delete subscriber %s (%s) and end its NAT sessions?",
			first.GetInsideAddress(), or(first.GetUserName(), "no user name")), nil
	}
	return fmt.Sprintf("Delete %d subscribers and end their NAT sessions?", n), nil
}

var errNobody = errors.New("no such subscriber is online; see `sessionctl subscriber list`")

func (a subscriberCommands) delete(ctx context.Context, pick subscriberFlags, order orderFlags) error {
	nat, err := pick.check()
	if err != nil {
		return err
	}
	client, err := a.subscribers()
	if err != nil {
		return err
	}
	ctx, cancel := a.bounded(ctx)
	defer cancel()
	res, err := client.DeleteSubscribers(ctx, &pb.DeleteSubscribersRequest{
		Group: pick.group, Inside: pick.inside, Nas: pick.nas, UserName: pick.user,
		UserNamePrefix: pick.userPrefix, CallingStationId: pick.station, AcctSessionId: pick.session,
		Outside: nat.outside, OutsidePort: nat.outsidePort, Remote: nat.remote, RemotePort: nat.remotePort, State: nat.state,
		Reason: order.reason, RequestId: order.requestID, ValidateOnly: order.validateOnly,
	})
	if err != nil {
		return err
	}
	if res.GetDeleted() == 0 {
		return errNobody
	}
	if order.validateOnly {
		return a.tried(res, "delete %s and end %s", plural(res.GetDeleted(), "subscriber"), plural(res.GetSessionsEnded(), "NAT session"))
	}
	return a.showDeleted(res)
}

func (a subscriberCommands) showDeleted(res *pb.DeleteSubscribersResponse) error {
	if !a.forPeople() {
		return newList(&a.printer, subscriberHeader, a.row).addAll(res.GetSubscribers())
	}
	for _, s := range res.GetSubscribers() {
		if _, err := fmt.Fprintf(a.stdout, "deleted %s (%s)\n", s.GetInsideAddress(), or(s.GetUserName(), "no user name")); err != nil {
			return err
		}
	}
	return more(a.stdout, int(res.GetDeleted())-len(res.GetSubscribers()))
}

// more prints the number of items that an answer left out.
func more(w io.Writer, n int) error {
	if n <= 0 {
		return nil
	}
	_, err := fmt.Fprintf(w, "and %d more\n", n)
	return err
}
