package main

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/spf13/cobra"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
)

func (a subscriberCommands) watchCommand() *cobra.Command {
	var pick subscriberFlags
	c := &cobra.Command{
		Use:     "watch",
		Short:   "Show events as they happen, until interrupted",
		Example: "  sessionctl watch --nas bng1.example\n  sessionctl watch -o json | jq .kind",
		Args:    args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := prefix("--inside", pick.inside); err != nil {
				return err
			}
			err := a.watch(c.Context(), pick)
			if c.Context().Err() != nil {
				return nil // interrupted, the normal end of a watch
			}
			return err
		},
	}
	pick.register(c.Flags())
	a.completePicks(c)
	return c
}

// watchWidths fit most events, because future events are not known.
var watchWidths = []int{20, 8, 11, 8, 15, 16, 15, 11}

func (a subscriberCommands) watch(ctx context.Context, pick subscriberFlags) error {
	client, err := a.subscribers()
	if err != nil {
		return err
	}
	stream, err := client.WatchSubscribers(ctx, &pb.WatchSubscribersRequest{
		Group: pick.group, Nas: pick.nas, UserName: pick.user, Inside: pick.inside,
		UserNamePrefix: pick.userPrefix, CallingStationId: pick.station, AcctSessionId: pick.session,
	})
	if err != nil {
		return err
	}
	out := newList(&a.printer, []string{"TIME", "EVENT", "REASON", "GROUP", "INSIDE", "USER", "OUTSIDE", "PORTS", "SESSIONS"}, a.eventRow)
	out.leastImportant("GROUP", "SESSIONS", "PORTS", "OUTSIDE")
	if _, err := stream.Header(); err != nil {
		return err
	}
	if a.forPeople() {
		if err := out.table.stream(watchWidths...); err != nil {
			return err
		}
	}
	for {
		res, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := out.add(res.GetEvent()); err != nil {
			return err
		}
	}
}

func (p *printer) eventRow(e *pb.SubscriberEvent) []string {
	s := e.GetSubscriber()
	return []string{
		p.stamp(e.GetAt().AsTime()),
		strings.TrimPrefix(e.GetKind().String(), "EVENT_KIND_"), whyText(e),
		s.GetGroup(), s.GetInsideAddress(), or(s.GetUserName(), none),
		or(s.GetBinding().GetOutsideAddress(), none), ports(s.GetBinding()), sessionsText(e),
	}
}

// whyText returns the reason of an event, or the limits that a subscriber has
// reached.
func whyText(e *pb.SubscriberEvent) string {
	if e.GetKind() == pb.EventKind_EVENT_KIND_LIMIT_REACHED {
		return strings.Join(e.GetLimits(), ",")
	}
	return reasonText(e.GetReason())
}

func reasonText(r pb.Reason) string {
	if r == pb.Reason_REASON_UNSPECIFIED {
		return none
	}
	return strings.TrimPrefix(r.String(), "REASON_")
}

// sessionsText returns the number of sessions that an event ended, or else of
// present ones.
func sessionsText(e *pb.SubscriberEvent) string {
	if e.GetKind() == pb.EventKind_EVENT_KIND_REAPED {
		return number(e.GetSessionsEnded()) + " ended"
	}
	if e.GetSubscriber().GetBinding() == nil {
		return none
	}
	return number(e.GetSubscriber().GetBinding().GetSessions())
}
