package main

import (
	"fmt"

	"github.com/spf13/cobra"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
)

// poolCommands are the commands that show pools.
type poolCommands struct{ *app }

func (a poolCommands) command() *cobra.Command {
	c := group("pool", "Public address pools", a.listCommand())
	c.Aliases = []string{"pools"}
	return c
}

func (a poolCommands) listCommand() *cobra.Command {
	req := &pb.ListPoolsRequest{}
	c := &cobra.Command{
		Use:   "list",
		Short: "Count the port blocks of every outside prefix",
		Args:  args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := a.nat()
			if err != nil {
				return err
			}
			ctx, cancel := a.bounded(c.Context())
			defer cancel()
			res, err := client.ListPools(ctx, req)
			if err != nil {
				return err
			}
			out := newList(&a.printer, poolHeader, poolRow)
			out.nobody = "no such pool"
			if err := out.addAll(res.GetPools()); err != nil {
				return err
			}
			return out.end()
		},
	}
	c.Flags().StringVar(&req.Group, "group", "", "only this `group`")
	a.completeGroups(c)
	return c
}

var poolHeader = []string{"GROUP", "OUTSIDE", "BLOCKS", "USED", "HELD", "FREE", "TAKEN", "DRAINING"}

func poolRow(p *pb.Pool) []string {
	return []string{
		p.GetGroup(), p.GetOutsidePrefix(), number(p.GetBlocksTotal()),
		number(p.GetBlocksUsed()), number(p.GetBlocksHeld()), number(p.GetBlocksFree()),
		percent(p.GetBlocksUsed()+p.GetBlocksHeld(), p.GetBlocksTotal()),
		yesIf(p.GetDraining()),
	}
}

// yesIf returns a table's word for true, none for false.
func yesIf(b bool) string {
	if b {
		return "yes"
	}
	return none
}

func percent(part, whole uint32) string {
	if whole == 0 {
		return none
	}
	return fmt.Sprintf("%.1f %%", 100*float64(part)/float64(whole))
}
