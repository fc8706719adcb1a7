package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
)

func (a subscriberCommands) putCommand() *cobra.Command {
	sub := &pb.Subscriber{}
	var expiresIn time.Duration
	var order orderFlags
	c := &cobra.Command{
		Use:     "put ADDRESS --user U",
		Short:   "Provision a subscriber without RADIUS, or replace its record",
		Example: "  sessionctl subscriber put 100.64.0.7 --user alice --expires-in 8h",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, given []string) error {
			var err error
			if sub.InsideAddress, err = address(given[0]); err != nil {
				return err
			}
			if sub.UserName == "" && sub.CallingStationId == "" {
				return usagef("say who it is: --user, or --calling-station-id")
			}
			if expiresIn < 0 {
				return usagef("--expires-in must not be negative")
			}
			if expiresIn > 0 {
				sub.ExpiresAt = timestamppb.New(a.now().Add(expiresIn))
			}
			return a.put(c.Context(), sub, order)
		},
	}
	flags := c.Flags()
	flags.StringVar(&sub.UserName, "user", "", "the `User-Name`")
	flags.StringVar(&sub.CallingStationId, "calling-station-id", "", "the `Calling-Station-Id`")
	flags.StringVar(&sub.Nas, "nas", "", "the `NAS` to file it under")
	flags.StringVar(&sub.AcctSessionId, "session-id", "", "the `Acct-Session-Id`")
	flags.StringVar(&sub.Group, "group", "", "the `group`, where groups share inside addresses")
	flags.DurationVar(&expiresIn, "expires-in", 0, "end the record after this `time`; 0 for never")
	a.completeGroups(c)
	order.register(c)
	return c
}

func (a subscriberCommands) put(ctx context.Context, sub *pb.Subscriber, order orderFlags) error {
	client, err := a.subscribers()
	if err != nil {
		return err
	}
	ctx, cancel := a.bounded(ctx)
	defer cancel()
	res, err := client.PutSubscriber(ctx, &pb.PutSubscriberRequest{
		Subscriber: sub, Reason: order.reason, RequestId: order.requestID, ValidateOnly: order.validateOnly,
	})
	if err != nil {
		return err
	}
	if order.validateOnly {
		return a.tried(res, "store %s, end %s there and %s", sub.GetInsideAddress(),
			plural(res.GetSubscribersEnded(), "subscriber"), plural(res.GetSessionsEnded(), "NAT session"))
	}
	return a.show(res.GetSubscriber())
}
