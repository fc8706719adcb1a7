package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
)

// bindingCommands are the commands that show bindings.
type bindingCommands struct{ *app }

func (a bindingCommands) command() *cobra.Command {
	c := group("binding", "Who has which public address and ports", a.listCommand(), a.lookupCommand())
	c.Aliases = []string{"bindings"}
	return c
}

func (a bindingCommands) listCommand() *cobra.Command {
	req := &pb.ListBindingsRequest{PageSize: pageSize}
	var stateName, outside string
	c := &cobra.Command{
		Use:     "list",
		Short:   "List the bindings, held ones included",
		Example: "  sessionctl binding list --outside 198.51.100.1\n  sessionctl binding list --state held",
		Args:    args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := prefix("--inside", req.GetInside()); err != nil {
				return err
			}
			var err error
			if req.Outside, req.OutsidePort, err = endpoint("--outside", outside); err != nil {
				return err
			}
			if req.State, err = stateOf(stateName); err != nil {
				return err
			}
			return a.list(c.Context(), req)
		},
	}
	flags := c.Flags()
	flags.StringVar(&req.Group, "group", "", "only this `group`")
	flags.StringVar(&req.Inside, "inside", "", "only this inside `address` or prefix")
	flags.StringVar(&outside, "outside", "", "only this outside `address`, prefix, or address:port")
	flags.StringVar(&req.UserName, "user", "", "only holders with this `User-Name`")
	flags.StringVar(&req.UserNamePrefix, "user-prefix", "", "only holders whose User-Name begins with this `text`")
	flags.StringVar(&req.AcctSessionId, "session-id", "", "only holders with this `Acct-Session-Id`")
	flags.StringVar(&stateName, "state", "", "only this `state`: active, draining, cut or held")
	a.completePicks(c)
	complete(c, "state", "active", "draining", "cut", "held")
	a.listFlags(c, bindingHeader)
	return c
}

func (a bindingCommands) list(ctx context.Context, req *pb.ListBindingsRequest) error {
	out := newList(&a.printer, bindingHeader, a.row)
	out.leastImportant("GROUP", "RELEASED", "AGE", "SESSIONS", "HELD FOR")
	out.nobody = "no such binding"
	if err := a.each(ctx, req, out.addAll); err != nil {
		return err
	}
	return out.end()
}

// each pages through all bindings that match.
func (a bindingCommands) each(ctx context.Context, req *pb.ListBindingsRequest, show func([]*pb.Binding) error) error {
	client, err := a.nat()
	if err != nil {
		return err
	}
	return eachPage(ctx, func(ctx context.Context, token string) ([]*pb.Binding, string, error) {
		ctx, cancel := a.bounded(ctx)
		defer cancel()
		req.PageToken = token
		page, err := client.ListBindings(ctx, req)
		return page.GetBindings(), page.GetNextPageToken(), err
	}, show)
}

var bindingHeader = []string{"GROUP", "INSIDE", "OUTSIDE", "PORTS", "STATE", "USER", "SESSIONS", "AGE", "RELEASED", "HELD FOR"}

func (a bindingCommands) row(b *pb.Binding) []string {
	return []string{
		b.GetGroup(), b.GetInsideAddress(), b.GetOutsideAddress(), ports(b), bindingState(b),
		or(b.GetUserName(), none), number(b.GetSessions()),
		a.age(b.GetAllocatedAt()), a.age(b.GetReleasedAt()), a.until(b.GetHoldUntil()),
	}
}

// ports returns the ports of all blocks. A daemon of an earlier version tells only
// those of the first.
func ports(b *pb.Binding) string {
	if b == nil {
		return none
	}
	text := fmt.Sprintf("%d-%d", b.GetFirstPort(), b.GetLastPort())
	for i, further := range b.GetBlocks() {
		if i > 0 {
			text += fmt.Sprintf(",%d-%d", further.GetFirstPort(), further.GetLastPort())
		}
	}
	return text
}

func bindingState(b *pb.Binding) string {
	return strings.TrimPrefix(b.GetState().String(), "BINDING_STATE_")
}

func stateOf(name string) (pb.BindingState, error) {
	if name == "" {
		return pb.BindingState_BINDING_STATE_UNSPECIFIED, nil
	}
	n, ok := pb.BindingState_value["BINDING_STATE_"+strings.ToUpper(name)]
	if !ok || n == 0 {
		return 0, usagef("--state: %q is none of active, draining, cut, held", name)
	}
	return pb.BindingState(n), nil
}

func (a bindingCommands) lookupCommand() *cobra.Command {
	var at string
	var proof bool
	c := &cobra.Command{
		Use:   "lookup OUTSIDE[:PORT]",
		Short: "Tell who holds, or held at a given time, a public port",
		Long: "Tell who holds a public port, or held it at a given time. Where the daemon keeps a history, it answers\n" +
			"for all times of its retention: with the holder, with nobody and the last holder, or with the reason why\n" +
			"nobody knows; exit code 0 for a holder alone. Without PORT it lists all holders of the address at the time.",
		Example: "  sessionctl binding lookup 198.51.100.1:1100\n" +
			"  sessionctl binding lookup 198.51.100.1:1100 --at 2026-03-01T11:30:00Z --proof\n" +
			"  sessionctl binding lookup 198.51.100.1 --at 2026-03-01T11:30:00Z",
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, given []string) error {
			req, err := lookupRequest(given[0], at, a.here())
			if err != nil {
				return err
			}
			req.Proof = proof
			return a.lookup(c.Context(), req)
		},
	}
	c.Flags().StringVar(&at, "at", "", "the `time`: "+timeForms+"; default now")
	c.Flags().BoolVar(&proof, "proof", false, "prove an answer of the history; history check-proof checks that")
	complete(c, "at")
	return c
}

func lookupRequest(target, at string, now time.Time) (*pb.LookupOutsideRequest, error) {
	outside, port, err := endpoint("OUTSIDE[:PORT]", target)
	if err != nil {
		return nil, err
	}
	if outside, err = address(outside); err != nil {
		return nil, err
	}
	if port == 0 && at == "" {
		return nil, usagef("say which port: %s:PORT, or when: --at TIME; binding list --outside %s shows the holders now", outside, outside)
	}
	req := &pb.LookupOutsideRequest{OutsideAddress: outside, Port: port, PageSize: pageSize}
	req.At, err = timestamp("--at", at, now)
	return req, err
}

// outsideEndpoint reads OUTSIDE:PORT, both of which are needed.
func outsideEndpoint(text string) (outside string, port uint32, err error) {
	if outside, port, err = endpoint("OUTSIDE:PORT", text); err != nil {
		return "", 0, err
	}
	if outside, err = address(outside); err != nil {
		return "", 0, err
	}
	if port == 0 {
		return "", 0, usagef("say which port: %s:PORT", outside)
	}
	return outside, port, nil
}

func (a bindingCommands) lookup(ctx context.Context, req *pb.LookupOutsideRequest) error {
	client, err := a.nat()
	if err != nil {
		return err
	}
	if req.GetPort() == 0 {
		return a.candidates(ctx, client, req)
	}
	ctx, cancel := a.bounded(ctx)
	defer cancel()
	res, err := client.LookupOutside(ctx, req)
	switch {
	case err != nil:
		return err
	case res.GetAnswer() != nil:
		return a.past(res.GetAnswer())
	case res.GetBinding() != nil:
		return a.show(res.GetBinding())
	}
	return a.showMappings(res.GetMappings())
}

// candidates lists all holders of an address at a time.
func (a bindingCommands) candidates(ctx context.Context, client pb.NatServiceClient, req *pb.LookupOutsideRequest) error {
	out := newList(&a.printer, recordHeader, a.recordRow)
	out.leastImportant("GROUP", "SESSION", "NAS")
	out.nobody = "nobody had the address"
	missing := ""
	err := eachPage(ctx, func(ctx context.Context, token string) (*pb.LookupOutsideResponse, string, error) {
		ctx, cancel := a.bounded(ctx)
		defer cancel()
		req.PageToken = token
		page, err := client.LookupOutside(ctx, req)
		return page, page.GetNextPageToken(), err
	}, func(page *pb.LookupOutsideResponse) error {
		missing = or(page.GetAnswer().GetDetail(), missing)
		return out.addAll(page.GetCandidates())
	})
	if err != nil {
		return err
	}
	if err := out.end(); err != nil || missing == "" {
		return err
	}
	return fmt.Errorf("there may be others: %s", missing)
}

// past shows an answer of the history. It is an error where nobody is the holder, or nobody knows.
func (a bindingCommands) past(x *pb.HistoryAnswer) error {
	pairs := [][2]string{{"Answer", verdictText(x)}}
	if r := x.GetRecord(); r != nil {
		whose := "User"
		if x.GetVerdict() == pb.HistoryVerdict_HISTORY_VERDICT_NOBODY {
			whose = "Last user"
		}
		pairs = append(pairs, [][2]string{
			{whose, recordUser(r)},
			{"Inside address", or(r.GetInsideAddress(), none)},
			{"Outside address", r.GetOutsideAddress()},
			{"Ports", fmt.Sprintf("%d-%d", r.GetFirstPort(), r.GetLastPort())},
			{"Group", r.GetGroup()},
			{"Session", or(r.GetAcctSessionId(), none)},
			{"Calling station", or(r.GetCallingStationId(), none)},
			{"NAS", or(r.GetNas(), none)},
			{"IPv6", or(strings.Join(r.GetIpv6Prefixes(), " "), none)},
			{"Allocated", a.exact(r.GetAllocatedAt().AsTime())},
			{"Released", a.released(r)},
		}...)
	}
	if x.GetProofMissing() != "" {
		pairs = append(pairs, [2]string{"No proof", x.GetProofMissing()})
	}
	if err := a.details(x, pairs); err != nil {
		return err
	}
	if a.forPeople() && x.GetProof() != "" { // a line by itself, as check-proof reads it
		if _, err := fmt.Fprintln(a.stdout, x.GetProof()); err != nil {
			return err
		}
	}
	switch x.GetVerdict() {
	case pb.HistoryVerdict_HISTORY_VERDICT_HELD:
		return nil
	case pb.HistoryVerdict_HISTORY_VERDICT_NOBODY:
		return errors.New("nobody had the port at that time")
	}
	return errors.New("it is not known who had the port at that time")
}

func (a bindingCommands) show(b *pb.Binding) error {
	return a.details(b, [][2]string{
		{"Outside address", b.GetOutsideAddress()},
		{"Ports", ports(b)},
		{"Inside address", b.GetInsideAddress()},
		{"Group", b.GetGroup()},
		{"User", or(b.GetUserName(), none)},
		{"Session", or(b.GetAcctSessionId(), none)},
		{"State", bindingState(b)},
		{"Allocated", a.moment(b.GetAllocatedAt())},
		{"Released", a.moment(b.GetReleasedAt())},
		{"Reason", endReason(b.GetReason(), b.GetTerminateCause())},
		{"Grace until", a.moment(b.GetGraceUntil())},
		{"Cut", a.moment(b.GetReceipt().GetCutAt())},
		{"Proved gone", a.proof(b.GetReceipt())},
		{"Held until", a.moment(b.GetHoldUntil())},
		{"NAT sessions", number(b.GetSessions())},
	})
}

// proof describes the proof of a binding's removal: its time, the removed
// elements and sessions, and its method; none before the proof.
func (a bindingCommands) proof(r *pb.Receipt) string {
	if r.GetReapedAt() == nil {
		return none
	}
	return fmt.Sprintf("%s, %s and %s, by %s", a.moment(r.GetReapedAt()),
		plural(r.GetElementsRemoved(), "element"), plural(r.GetSessionsDeleted(), "session"), strings.ToLower(strings.TrimPrefix(r.GetProof().String(), "PROOF_")))
}
