package main

import (
	"strconv"

	"github.com/spf13/cobra"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
)

// dropCommands is the command that shows dropped packets.
type dropCommands struct{ *app }

func (a dropCommands) command() *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:     "drops",
		Example: "  sessionctl drops --watch",
		Short:   "Count the packets that did not pass, by reason and direction",
		Long: `Count the packets that did not pass since the counters began, by reason and
direction: out, from a subscriber; in, to a subscriber or from elsewhere; local,
to the machine itself; any, all of these. With -o json every reason is listed.`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := a.nat()
			if err != nil {
				return err
			}
			ctx, cancel := a.bounded(c.Context())
			defer cancel()
			res, err := client.ListDrops(ctx, &pb.ListDropsRequest{})
			if err != nil {
				return err
			}
			out := newList(&a.printer, dropHeader, dropRow)
			out.nobody = "no packet was dropped"
			for _, d := range res.GetDrops() {
				if d.GetPackets() == 0 && !all && a.forPeople() {
					continue
				}
				if err := out.add(d); err != nil {
					return err
				}
			}
			return out.end()
		},
	}
	c.Flags().BoolVar(&all, "all", false, "list the reasons without packets, too")
	a.listFlags(c, dropHeader)
	return c
}

var dropHeader = []string{"REASON", "DIRECTION", "PACKETS", "BYTES", "MEANING"}

func dropRow(d *pb.Drop) []string {
	bytes := none
	if d.GetBytesCounted() {
		bytes = strconv.FormatUint(d.GetBytes(), 10)
	}
	return []string{d.GetReason(), d.GetDirection(), strconv.FormatUint(d.GetPackets(), 10), bytes, d.GetMeaning()}
}
