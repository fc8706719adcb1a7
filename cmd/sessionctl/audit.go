package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
)

// auditCommands are the commands that show and check the audit trail.
type auditCommands struct{ *app }

func (a auditCommands) command() *cobra.Command {
	return group("audit", "Who changed something, when and why", a.listCommand(), a.verifyCommand())
}

func (a auditCommands) listCommand() *cobra.Command {
	req := &pb.ListAuditRequest{PageSize: pageSize}
	var from, to string
	c := &cobra.Command{
		Use:   "list",
		Short: "List the changes that callers ordered, newest first",
		Long: "List the changes that callers ordered, newest first. Where a part of a Redis Cluster is away,\n" +
			"the others are listed, and the trails that are missing are named: then the exit code is 3.",
		Example: "  sessionctl audit list --from -1h\n" +
			"  sessionctl audit list --from 14:00 --to 15:30\n" +
			"  sessionctl audit list --method DeleteSubscribers -o json",
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if req.From, err = timestamp("--from", from, a.here()); err != nil {
				return err
			}
			if req.To, err = timestamp("--to", to, a.here()); err != nil {
				return err
			}
			return a.list(c.Context(), req)
		},
	}
	flags := c.Flags()
	flags.StringVar(&req.Actor, "actor", "", "only changes of this `caller`")
	flags.StringVar(&req.Method, "method", "", "only this `method`, such as DeleteSubscribers")
	flags.StringVar(&req.Group, "group", "", "only this `group`")
	flags.StringVar(&req.RequestId, "request-id", "", "only the request with this `name`")
	flags.StringVar(&from, "from", "", "from this `time` on: "+timeForms)
	flags.StringVar(&to, "to", "", "before this `time`")
	a.completeGroups(c)
	for _, flag := range []string{"actor", "request-id", "from", "to"} {
		complete(c, flag)
	}
	complete(c, "method", changingMethods...)
	return c
}

// changingMethods are the methods that the trail has entries of.
var changingMethods = []string{
	"PutSubscriber", "DeleteSubscribers", "TerminateSessions", "UpdateSettings", "Reconcile", "ConfirmRemovals", "RefuseRemovals",
	"AddPool", "DrainPool", "RemovePool", "CreateMapping", "DeleteMapping", "ExportHistory", "BackupHistory", "EraseHistory",
}

func (a auditCommands) list(ctx context.Context, req *pb.ListAuditRequest) error {
	client, err := a.audits()
	if err != nil {
		return err
	}
	out := newList(&a.printer, auditHeader, a.auditRow)
	out.nobody = "no such change"
	unread := map[string]string{}
	err = eachPage(ctx, func(ctx context.Context, token string) (*pb.ListAuditResponse, string, error) {
		ctx, cancel := a.bounded(ctx)
		defer cancel()
		req.PageToken = token
		page, err := client.ListAudit(ctx, req)
		return page, page.GetNextPageToken(), err
	}, func(page *pb.ListAuditResponse) error {
		for _, u := range page.GetUnread() {
			unread[u.GetTrail()] = unreadText(u.GetTrail(), u.GetProblem())
		}
		return out.addAll(page.GetEntries())
	})
	if err != nil {
		return err
	}
	if err := out.end(); err != nil || len(unread) == 0 {
		return err
	}
	return unreadError{"entries are missing: " + strings.Join(slices.Sorted(maps.Values(unread)), "; "), "the list has those of the other trails"}
}

// unreadText says that a trail cannot be read.
func unreadText(trail, problem string) string {
	return fmt.Sprintf("%s cannot be read: %s", trailName(trail), problem)
}

var auditHeader = []string{"AT", "ID", "ACTOR", "METHOD", "GROUP", "COUNT", "OUTCOME", "REASON", "OF"}

func (a auditCommands) auditRow(e *pb.AuditEntry) []string {
	return []string{
		a.stamp(e.GetAt().AsTime()), e.GetId(), e.GetActor(), e.GetMethod(), or(e.GetGroup(), none), number(e.GetCount()),
		strings.ToLower(strings.TrimPrefix(e.GetOutcome().String(), "AUDIT_OUTCOME_")), or(e.GetReason(), none), or(subjects(e), none),
	}
}

// subjects names the first of the things that were changed.
func subjects(e *pb.AuditEntry) string {
	const most = 3
	keys := e.GetKeys()
	if len(keys) <= most {
		return strings.Join(keys, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(keys[:most], ", "), len(keys)-most)
}

func (a auditCommands) verifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify [TRAIL]",
		Short: "Check that no entry was changed and none is missing",
		Long: "Check that no entry was changed, moved or removed, and name the first that was. TRAIL is a\n" +
			"group, or _ for the changes that belong to none. Exit code 1 where an entry is not as it was\n" +
			"written, else 3 where a trail could not be read. Who can write to Redis can also write a whole\n" +
			"new trail: compare the last hash with the one in the copy that audit.file or audit.syslog have.",
		Example: "  sessionctl audit verify\n  sessionctl audit verify default -o json",
		Args:    args(cobra.MaximumNArgs(1)),
		ValidArgsFunction: func(c *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
			return a.groupNames(c.Context(), typed), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, given []string) error {
			req := &pb.VerifyAuditRequest{}
			if len(given) > 0 {
				req.Trail = given[0]
			}
			return a.verify(c.Context(), req)
		},
	}
}

func (a auditCommands) verify(ctx context.Context, req *pb.VerifyAuditRequest) error {
	client, err := a.audits()
	if err != nil {
		return err
	}
	ctx, cancel := a.bounded(ctx)
	defer cancel()
	res, err := client.VerifyAudit(ctx, req)
	if err != nil {
		return err
	}
	out := newList(&a.printer, []string{"TRAIL", "FIRST", "LAST", "ENTRIES", "LAST HASH", "FLAW"}, checkRow)
	if err := out.addAll(res.GetTrails()); err != nil {
		return err
	}
	if err := out.end(); err != nil {
		return err
	}
	return verdict(res.GetTrails())
}

// verdict returns an error about trails that are not as they were written, else about those that
// could not be read.
func verdict(trails []*pb.TrailCheck) error {
	var flaws, unread []string
	for _, t := range trails {
		switch {
		case t.GetUnread() != "":
			unread = append(unread, unreadText(t.GetTrail(), t.GetUnread()))
		case t.GetFlaw() != pb.AuditFlaw_AUDIT_FLAW_UNSPECIFIED:
			flaws = append(flaws, fmt.Sprintf("entry %s of the audit trail is not as it was written: %s", t.GetFlawId(), flaw(t)))
		}
	}
	if len(flaws) > 0 {
		return errors.New(strings.Join(append(flaws, unread...), "; "))
	}
	if len(unread) > 0 {
		return unreadError{strings.Join(unread, "; "), "the other trails are as they were written"}
	}
	return nil
}

// trailName names a trail, or the names of those that are not known.
func trailName(trail string) string {
	if trail == "" {
		return "the list of trails of groups that are not configured"
	}
	return "trail " + trail
}

func checkRow(t *pb.TrailCheck) []string {
	return []string{
		or(t.GetTrail(), none), or(t.GetFirstId(), none), or(t.GetLastId(), none), number(t.GetEntries()),
		or(t.GetLastHash(), none), flaw(t),
	}
}

// flaw describes the first flaw of a trail; "none" without one.
func flaw(t *pb.TrailCheck) string {
	if t.GetUnread() != "" {
		return "not known: the trail cannot be read"
	}
	if t.GetFlaw() == pb.AuditFlaw_AUDIT_FLAW_UNSPECIFIED {
		return "none"
	}
	return strings.ToLower(strings.TrimPrefix(t.GetFlaw().String(), "AUDIT_FLAW_")) + ": " + t.GetDetail()
}
