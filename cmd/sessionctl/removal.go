package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
)

// removalCommands are the commands that show removals that wait, and decide about those held back.
type removalCommands struct{ *app }

func (a removalCommands) command() *cobra.Command {
	c := group("removal", "Removals that wait, and the decision about those held back",
		a.listCommand(), a.confirmCommand(), a.refuseCommand())
	c.Aliases = []string{"removals"}
	return c
}

// removalFlags are the flags that select removals.
type removalFlags struct{ group, nas, inside, reason string }

// reasonNames are the possible reasons of a pending removal.
var reasonNames = []string{"expired", "removed_in_database", "nas_restart", "stop", "admin", "superseded"}

func (f *removalFlags) register(k completer, c *cobra.Command) {
	f.add(c.Flags())
	k.completePicks(c)
	complete(c, "reason", reasonNames...)
}

func (f *removalFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.group, "group", "", "only this `group`")
	flags.StringVar(&f.nas, "nas", "", "only subscribers of this `NAS`")
	flags.StringVar(&f.inside, "inside", "", "only inside addresses in this `prefix`")
	flags.StringVar(&f.reason, "reason", "", "only this `reason`: "+strings.Join(reasonNames[:3], ", ")+" or another")
}

func (f *removalFlags) filter() (*pb.RemovalFilter, error) {
	if err := prefix("--inside", f.inside); err != nil {
		return nil, err
	}
	filter := &pb.RemovalFilter{Group: f.group, Nas: f.nas, Inside: f.inside}
	if f.reason == "" {
		return filter, nil
	}
	n, ok := pb.Reason_value["REASON_"+strings.ToUpper(f.reason)]
	if !ok || n == 0 {
		return nil, usagef("--reason: %q is none of %s", f.reason, strings.Join(reasonNames, ", "))
	}
	filter.Reason = pb.Reason(n)
	return filter, nil
}

// decision is the filter of a decision, which must not be empty.
func (f *removalFlags) decision() (*pb.RemovalFilter, error) {
	filter, err := f.filter()
	if err == nil && *f == (removalFlags{}) {
		return nil, usagef("say which: --group, --nas, --inside or --reason; --inside 0.0.0.0/0 for all")
	}
	return filter, err
}

func (a removalCommands) listCommand() *cobra.Command {
	var pick removalFlags
	var kindName string
	c := &cobra.Command{
		Use:     "list",
		Short:   "List the removals that are not, or not yet, carried out",
		Example: "  sessionctl removal list --kind held\n  sessionctl removal list --reason expired -o json",
		Args:    args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			filter, err := pick.filter()
			if err != nil {
				return err
			}
			kind, err := removalKind(kindName)
			if err != nil {
				return err
			}
			out := newList(&a.printer, removalHeader, a.row)
			out.leastImportant("GROUP", "SESSIONS", "NAS")
			out.nobody = "no such removal"
			if err := a.each(c.Context(), filter, kind, out.addAll); err != nil {
				return err
			}
			return out.end()
		},
	}
	c.Flags().StringVar(&kindName, "kind", "", "only this `kind`: held, grace or observed")
	pick.register(a.completer, c)
	complete(c, "kind", "held", "grace", "observed")
	a.listFlags(c, removalHeader)
	return c
}

func removalKind(name string) (pb.RemovalKind, error) {
	if name == "" {
		return pb.RemovalKind_REMOVAL_KIND_UNSPECIFIED, nil
	}
	n, ok := pb.RemovalKind_value["REMOVAL_KIND_"+strings.ToUpper(name)]
	if !ok || n == 0 {
		return 0, usagef("--kind: %q is none of held, grace, observed", name)
	}
	return pb.RemovalKind(n), nil
}

// eachRemoval pages through all removals that match.
func (a removalCommands) each(ctx context.Context, f *pb.RemovalFilter, kind pb.RemovalKind, show func([]*pb.Removal) error) error {
	client, err := a.removals()
	if err != nil {
		return err
	}
	req := &pb.ListRemovalsRequest{PageSize: pageSize, Filter: f, Kind: kind}
	return eachPage(ctx, func(ctx context.Context, token string) ([]*pb.Removal, string, error) {
		ctx, cancel := a.bounded(ctx)
		defer cancel()
		req.PageToken = token
		page, err := client.ListRemovals(ctx, req)
		return page.GetRemovals(), page.GetNextPageToken(), err
	}, show)
}

var removalHeader = []string{"KIND", "GROUP", "INSIDE", "REASON", "USER", "NAS", "SESSIONS", "SINCE", "DUE IN"}

func (a removalCommands) row(r *pb.Removal) []string {
	return []string{
		strings.TrimPrefix(r.GetKind().String(), "REMOVAL_KIND_"), r.GetGroup(), r.GetInsideAddress(),
		reasonText(r.GetReason()), or(r.GetUserName(), none), or(r.GetNas(), none), number(r.GetSessions()),
		a.age(r.GetSince()), a.until(r.GetDueAt()),
	}
}

func (a removalCommands) confirmCommand() *cobra.Command {
	return a.decisionCommand(&cobra.Command{
		Use:   "confirm {--group G | --nas N | --inside PREFIX | --reason R}",
		Short: "Carry out held removals: ends the subscribers' NAT sessions and frees their ports",
		Example: "  sessionctl removal confirm --reason expired\n" +
			"  sessionctl removal confirm --inside 0.0.0.0/0 --yes",
	}, "Carry out %[1]s and end %[2]s?", a.confirmHeld)
}

func (a removalCommands) refuseCommand() *cobra.Command {
	return a.decisionCommand(&cobra.Command{
		Use:   "refuse {--group G | --nas N | --inside PREFIX | --reason R}",
		Short: "Drop held removals: the subscribers stay online for another record_ttl",
		Example: "  sessionctl removal refuse --nas bng1.example\n" +
			"  sessionctl removal refuse --inside 0.0.0.0/0 --yes",
	}, "Drop %[1]s and keep the subscribers online?", a.refuseHeld)
}

// decisionCommand completes a command that decides about held removals.
func (a removalCommands) decisionCommand(c *cobra.Command, question string, decide func(context.Context, heldPick, orderFlags) error) *cobra.Command {
	var pick removalFlags
	var yes bool
	var order orderFlags
	c.Args = args(cobra.NoArgs)
	c.RunE = func(c *cobra.Command, _ []string) error {
		filter, err := pick.decision()
		if err != nil {
			return err
		}
		held := heldPick{filter: filter}
		err = a.confirm(yes || order.validateOnly, func() (text string, err error) {
			text, held.etag, err = a.decisionQuestion(c.Context(), filter, question)
			return text, err
		})
		if err != nil {
			return err
		}
		return decide(c.Context(), held, order)
	}
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	pick.register(a.completer, c)
	order.register(c)
	return c
}

// heldPick are the held removals that a decision is about. With the etag they are those that a
// person was asked about.
type heldPick struct {
	filter *pb.RemovalFilter
	etag   string
}

// decisionQuestion asks about the removals that are held now, and returns their etag.
func (a removalCommands) decisionQuestion(ctx context.Context, f *pb.RemovalFilter, question string) (text, etag string, err error) {
	client, err := a.removals()
	if err != nil {
		return "", "", err
	}
	ctx, cancel := a.bounded(ctx)
	defer cancel()
	res, err := client.ConfirmRemovals(ctx, &pb.ConfirmRemovalsRequest{Filter: f, ValidateOnly: true})
	if err != nil {
		return "", "", err
	}
	if res.GetConfirmed() == 0 {
		return "", "", errNoneHeld
	}
	text = fmt.Sprintf(question, plural(res.GetConfirmed(), "held removal"), plural(res.GetSessionsEnded(), "NAT session"))
	return text, res.GetEtag(), nil
}

var errNoneHeld = errors.New("no such removal is held; see `sessionctl removal list`")

func (a removalCommands) confirmHeld(ctx context.Context, held heldPick, order orderFlags) error {
	client, err := a.removals()
	if err != nil {
		return err
	}
	ctx, cancel := a.bounded(ctx)
	defer cancel()
	res, err := client.ConfirmRemovals(ctx, &pb.ConfirmRemovalsRequest{
		Filter: held.filter, Etag: held.etag, Reason: order.reason, RequestId: order.requestID, ValidateOnly: order.validateOnly,
	})
	if err != nil {
		return err
	}
	if res.GetConfirmed() == 0 {
		return errNoneHeld
	}
	if order.validateOnly {
		return a.tried(res, "carry out %s and end %s", plural(res.GetConfirmed(), "removal"), plural(res.GetSessionsEnded(), "NAT session"))
	}
	if !a.forPeople() {
		return a.message(res)
	}
	_, err = fmt.Fprintln(a.stdout, "carried out", plural(res.GetConfirmed(), "removal"))
	return err
}

func (a removalCommands) refuseHeld(ctx context.Context, held heldPick, order orderFlags) error {
	client, err := a.removals()
	if err != nil {
		return err
	}
	ctx, cancel := a.bounded(ctx)
	defer cancel()
	res, err := client.RefuseRemovals(ctx, &pb.RefuseRemovalsRequest{
		Filter: held.filter, Etag: held.etag, Reason: order.reason, RequestId: order.requestID, ValidateOnly: order.validateOnly,
	})
	if err != nil {
		return err
	}
	if res.GetRefused() == 0 {
		return errNoneHeld
	}
	if order.validateOnly {
		return a.tried(res, "drop %s", plural(res.GetRefused(), "removal"))
	}
	if !a.forPeople() {
		return a.message(res)
	}
	_, err = fmt.Fprintln(a.stdout, "dropped", plural(res.GetRefused(), "removal"))
	return err
}
