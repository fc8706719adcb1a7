package main

import (
	"context"

	"github.com/spf13/cobra"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
)

func (a daemonCommands) reconcileCommand() *cobra.Command {
	req := &pb.ReconcileRequest{}
	var order orderFlags
	c := &cobra.Command{
		Use:     "reconcile",
		Example: "  sessionctl reconcile --dry-run",
		Short:   "Compare Redis, engine and kernel, and mend what differs",
		Args:    args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			req.Reason, req.RequestId, req.ValidateOnly = order.reason, order.requestID, order.validateOnly
			return a.reconcile(c.Context(), req)
		},
	}
	c.Flags().BoolVar(&req.DryRun, "dry-run", false, "only show the differences")
	order.register(c)
	return c
}

func (a daemonCommands) reconcile(ctx context.Context, req *pb.ReconcileRequest) error {
	client, err := a.control()
	if err != nil {
		return err
	}
	ctx, cancel := a.bounded(ctx)
	defer cancel()
	res, err := client.Reconcile(ctx, req)
	if err != nil {
		return err
	}
	out := newList(&a.printer, []string{"KIND", "GROUP", "INSIDE", "MENDED", "WHAT"}, driftRow)
	out.nobody = "no differences"
	if err := out.addAll(res.GetDrifts()); err != nil {
		return err
	}
	if err := out.end(); err != nil {
		return err
	}
	return more(a.stderr, int(res.GetTotal())-len(res.GetDrifts()))
}

func driftRow(d *pb.Drift) []string {
	mended := "no"
	if d.GetMended() {
		mended = "yes"
	}
	return []string{d.GetKind(), or(d.GetGroup(), none), or(d.GetInsideAddress(), none), mended, d.GetWhat()}
}
