package main

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
)

// daemonCommands are the commands that show the daemon as a whole, and compare its parts.
type daemonCommands struct{ *app }

func (a daemonCommands) statusCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "status",
		Short:   "Show the daemon at a glance",
		Example: "  sessionctl status\n  sessionctl status --watch",
		Long: `status shows the daemon at a glance. The exit code is 4 while the daemon is not
ready, which is when it does not answer accounting: until it has restored and
reconciled everything at its start, and while it cannot use Redis. So it serves
as a health check.`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := a.control()
			if err != nil {
				return err
			}
			ctx, cancel := a.bounded(c.Context())
			defer cancel()
			res, err := client.GetStatus(ctx, &pb.GetStatusRequest{})
			if err != nil {
				return err
			}
			s := res.GetStatus()
			if err := a.showStatus(s); err != nil {
				return err
			}
			if !s.GetReady() {
				return notReadyError{s.GetNotReadyReason()}
			}
			return nil
		},
	}
	a.watchFlag(c)
	return c
}

func (a daemonCommands) showStatus(s *pb.Status) error {
	if !a.forPeople() {
		return a.message(s)
	}
	err := a.fields([][2]string{
		{"Node", s.GetNode()},
		{"Version", s.GetVersion()},
		{"Started", a.moment(s.GetStartedAt())},
		{"Ready", yesOr(s.GetReady(), s.GetNotReadyReason())},
		{"Database", databaseText(s)},
		{"Session removal", removalText(s.GetSettings())},
		{"NAT sessions", sessionTotal(s)},
		{"Last reconcile", a.reconcileText(s)},
	})
	if err != nil || len(s.GetGroups()) == 0 {
		return err
	}
	fmt.Fprintln(a.stdout)
	t := newTable(a.stdout, []string{"GROUP", "SUBSCRIBERS", "PENDING", "ACTIVE", "DRAINING", "CUT", "HELD", "REMOVALS HELD"})
	for _, g := range s.GetGroups() {
		if err := t.add(groupRow(g)); err != nil {
			return err
		}
	}
	if err := t.end(); err != nil {
		return err
	}
	for _, g := range s.GetGroups() {
		a.showQuarantine(g)
	}
	a.showForeign(s.GetForeignTranslations())
	a.showFlowtables(s.GetFlowtables())
	return nil
}

// showFlowtables prints the flowtables that may carry subscribers' packets past the
// gates.
func (a daemonCommands) showFlowtables(f *pb.Flowtables) {
	if f == nil {
		return
	}
	head := "Flowtables (nat.flowtables: " + f.GetMode() + ")"
	if f.GetRefused() {
		head = "FLOWTABLES OF OTHERS carry packets past the gates (nat.flowtables: " + f.GetMode() + ")"
	}
	if len(f.GetOthers()) == 0 {
		fmt.Fprintf(a.stdout, "\n%s: none of others\n", head)
		return
	}
	fmt.Fprintf(a.stdout, "\n%s:\n", head)
	for _, other := range f.GetOthers() {
		fmt.Fprintf(a.stdout, "  %s\n", other)
	}
}

// showForeign prints the rules of other tables that translate subscribers'
// flows.
func (a daemonCommands) showForeign(f *pb.ForeignTranslations) {
	if f == nil {
		return
	}
	fmt.Fprintf(a.stdout, "\nTRANSLATED BY OTHERS: %s, the newest %s, of %s as %s\n",
		plural(f.GetFlows(), "flow"), a.moment(f.GetNewestAt()), f.GetInsideAddress(), f.GetSeenAs())
	for _, chain := range f.GetNatChains() {
		fmt.Fprintf(a.stdout, "  perhaps by %s\n", chain)
	}
	if len(f.GetNatChains()) == 0 {
		fmt.Fprintln(a.stdout, "  by a rule that is gone, or one of iptables-legacy")
	}
}

// showQuarantine prints why free blocks are not allocated.
func (a daemonCommands) showQuarantine(g *pb.GroupStatus) {
	if g.GetQuarantinedBlocks() == 0 {
		return
	}
	fmt.Fprintf(a.stdout, "\nGroup %s: %s in quarantine until %s: the database lost who used them\n",
		g.GetName(), plural(g.GetQuarantinedBlocks(), "free block"), a.moment(g.GetQuarantinedUntil()))
}

// sessionTotal returns the number of all sessions, once it is known.
func sessionTotal(s *pb.Status) string {
	if slices.ContainsFunc(s.GetGroups(), (*pb.GroupStatus).GetRestoring) {
		return "being counted"
	}
	return number(s.GetSessions())
}

func groupRow(g *pb.GroupStatus) []string {
	if g.GetRestoring() { // its counts begin at zero, and say nothing
		return []string{g.GetName(), "restoring", none, none, none, none, none, none}
	}
	return []string{
		g.GetName(), number(g.GetSubscribers()), number(g.GetPending()),
		number(g.GetActive()), number(g.GetDraining()), number(g.GetCut()), number(g.GetHeld()), number(g.GetRemovalsHeld()),
	}
}

func yesOr(yes bool, why string) string {
	if yes {
		return "yes"
	}
	return "NO: " + or(why, "no reason given")
}

func databaseText(s *pb.Status) string {
	switch {
	case !s.GetDatabaseUp():
		return "DOWN"
	case s.GetDatabaseSuspectReason() != "":
		return "SUSPECT: " + s.GetDatabaseSuspectReason()
	}
	return "up"
}

func (a daemonCommands) reconcileText(s *pb.Status) string {
	if s.GetReconciledAt() == nil {
		return "none yet"
	}
	return a.moment(s.GetReconciledAt()) + ", " + plural(s.GetDrifts(), "difference")
}
