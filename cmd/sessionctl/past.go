package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
)

// historyCommands are the commands of the history of the NAT.
type historyCommands struct{ *app }

func (a historyCommands) command() *cobra.Command {
	return group("history", "Who had which public ports in the past, with proofs",
		a.listCommand(), a.exportCommand(), a.verifyCommand(), a.proofCommand(), a.backupCommand(), a.eraseCommand())
}

func (a historyCommands) listCommand() *cobra.Command {
	req := &pb.ListHistoryRequest{PageSize: pageSize}
	var from, to string
	c := &cobra.Command{
		Use:     "list USER | ADDRESS",
		Short:   "List the public ports that a user or an inside address had, the latest first",
		Example: "  sessionctl history list alice --from 2026-03-01 --to 2026-04-01\n  sessionctl history list 100.64.0.7 -o csv",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, given []string) (err error) {
			req.InsideAddress, req.UserName = customer(given[0])
			if req.From, err = timestamp("--from", from, a.here()); err != nil {
				return err
			}
			if req.To, err = timestamp("--to", to, a.here()); err != nil {
				return err
			}
			return a.list(c.Context(), req)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	flags := c.Flags()
	flags.StringVar(&req.Group, "group", "", "only this `group`")
	flags.StringVar(&from, "from", "", "not released before this `time`: "+timeForms)
	flags.StringVar(&to, "to", "", "allocated before this `time`")
	a.completeGroups(c)
	complete(c, "from")
	complete(c, "to")
	return c
}

var recordHeader = []string{"ALLOCATED", "RELEASED", "USER", "INSIDE", "OUTSIDE", "PORTS", "NAS", "SESSION", "GROUP"}

func (a *app) recordRow(r *pb.HistoryRecord) []string {
	return []string{
		a.exact(r.GetAllocatedAt().AsTime()), a.released(r), recordUser(r), or(r.GetInsideAddress(), none), r.GetOutsideAddress(),
		fmt.Sprintf("%d-%d", r.GetFirstPort(), r.GetLastPort()), or(r.GetNas(), none), or(r.GetAcctSessionId(), none), r.GetGroup(),
	}
}

// exact writes a time with its fraction: which holder had a port can depend on it.
func (p *printer) exact(t time.Time) string {
	return t.In(p.zone).Format("2006-01-02 15:04:05.999999 -0700")
}

// released writes when a record ended, as far as it is known.
func (a *app) released(r *pb.HistoryRecord) string {
	switch {
	case r.GetReleasedAt() == nil:
		return "not until " + a.exact(r.GetKnownUntil().AsTime())
	case r.GetReleasedBy() != nil:
		return "between " + a.exact(r.GetReleasedAt().AsTime()) + " and " + a.exact(r.GetReleasedBy().AsTime())
	}
	return a.exact(r.GetReleasedAt().AsTime())
}

func recordUser(r *pb.HistoryRecord) string {
	if r.GetErased() {
		return "(erased)"
	}
	return or(r.GetUserName(), none)
}

func (a historyCommands) list(ctx context.Context, req *pb.ListHistoryRequest) error {
	client, err := a.pasts()
	if err != nil {
		return err
	}
	out := newList(&a.printer, recordHeader, a.recordRow)
	out.leastImportant("GROUP", "SESSION", "NAS")
	out.nobody = "no such record"
	var page *pb.ListHistoryResponse
	err = eachPage(ctx, func(ctx context.Context, token string) (*pb.ListHistoryResponse, string, error) {
		ctx, cancel := a.bounded(ctx)
		defer cancel()
		req.PageToken = token
		page, err = client.ListHistory(ctx, req)
		return page, page.GetNextPageToken(), err
	}, func(page *pb.ListHistoryResponse) error { return out.addAll(page.GetRecords()) })
	if err == nil {
		err = out.end()
	}
	if err != nil || !a.forPeople() {
		return err
	}
	return a.reach(page)
}

// reach tells from when to when the history is known, and its gaps.
func (a historyCommands) reach(page *pb.ListHistoryResponse) error {
	for _, g := range page.GetGaps() {
		_, err := fmt.Fprintf(a.stdout, "Unknown in group %s from %s to %s: %s.\n", g.GetGroup(), a.exact(g.GetFrom().AsTime()), a.exact(g.GetTo().AsTime()), g.GetReason())
		if err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(a.stdout, "The history is known from %s to %s.\n", a.exact(page.GetBeginsAt().AsTime()), a.exact(page.GetKnownUntil().AsTime()))
	return err
}

func (a historyCommands) exportCommand() *cobra.Command {
	req := &pb.ExportHistoryRequest{}
	var outside, at, from, to string
	var order orderFlags
	c := &cobra.Command{
		Use:   "export --case NUMBER --reason TEXT (--outside A[:P] --at TIME | --user U | --inside A)",
		Short: "Answer a lawful request: question, answer, proof, who asked, and the case",
		Long: "Answer one question of a lawful request. Each answer has the question, its proof, who asked, when\n" +
			"and for which case, so that it stands for itself: write it with -o csv or -o json. The audit\n" +
			"trail has an entry before the answers, and one behind.",
		Example: "  sessionctl history export --outside 198.51.100.7:34567 --at 2026-03-01T11:03:07Z --case 4711 --reason court-order-12/26 -o json\n" +
			"  sessionctl history export --user alice --from 2026-03-01 --to 2026-04-01 --case 4711 --reason court-order-12/26 -o csv",
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if outside != "" {
				if req.OutsideAddress, req.Port, err = endpoint("--outside", outside); err != nil {
					return err
				}
			}
			for _, t := range []struct {
				flag, text string
				to         **timestamppb.Timestamp
			}{{"--at", at, &req.At}, {"--from", from, &req.From}, {"--to", to, &req.To}} {
				if *t.to, err = timestamp(t.flag, t.text, a.here()); err != nil {
					return err
				}
			}
			req.Reason, req.RequestId, req.ValidateOnly = order.reason, order.requestID, order.validateOnly
			return a.export(c.Context(), req)
		},
	}
	flags := c.Flags()
	flags.StringVar(&req.CaseNumber, "case", "", "`number` of the case")
	flags.StringVar(&outside, "outside", "", "who had this outside `address` or address:port")
	flags.StringVar(&at, "at", "", "at this `time`: "+timeForms)
	flags.StringVar(&req.UserName, "user", "", "which ports had this `User-Name`")
	flags.StringVar(&req.InsideAddress, "inside", "", "which ports had this inside `address`")
	flags.StringVar(&from, "from", "", "not released before this `time`")
	flags.StringVar(&to, "to", "", "allocated before this `time`")
	flags.StringVar(&req.Group, "group", "", "only this `group`")
	a.completePicks(c)
	order.register(c)
	for _, flag := range []string{"case", "at", "from", "to"} {
		complete(c, flag)
	}
	return c
}

var exportHeader = append([]string{"VERDICT"}, recordHeader...)

func (a historyCommands) export(ctx context.Context, req *pb.ExportHistoryRequest) error {
	client, err := a.pasts()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.ExportHistory(ctx, req)
	if err != nil {
		return err
	}
	out := newList(&a.printer, exportHeader, func(x *pb.ExportHistoryResponse) []string {
		row := a.recordRow(x.GetAnswer().GetRecord())
		if x.GetAnswer().GetRecord() == nil {
			row = make([]string, len(recordHeader))
		}
		return append([]string{verdictText(x.GetAnswer())}, row...)
	})
	return eachMessage(stream.Recv, out.add, out.end)
}

// eachMessage takes all messages of a stream.
func eachMessage[M any](receive func() (M, error), take func(M) error, end func() error) error {
	for {
		m, err := receive()
		if errors.Is(err, io.EOF) {
			return end()
		}
		if err != nil {
			return errors.Join(end(), err)
		}
		if err := take(m); err != nil {
			return err
		}
	}
}

// verdictText writes the kind of an answer, and why it is unknown.
func verdictText(x *pb.HistoryAnswer) string {
	text := strings.ToLower(strings.TrimPrefix(x.GetVerdict().String(), "HISTORY_VERDICT_"))
	switch {
	case x.GetVerdict() == pb.HistoryVerdict_HISTORY_VERDICT_UNKNOWN:
		text += ": " + x.GetDetail()
	case x.GetInQuarantine():
		text += ": in quarantine"
	}
	return text
}

func (a historyCommands) verifyCommand() *cobra.Command {
	req := &pb.VerifyHistoryRequest{}
	var known []string
	c := &cobra.Command{
		Use:   "verify [GROUP]",
		Short: "Check that no record was changed and none is missing",
		Long: "Check all records, and name the first one that was changed, moved or removed: exit code 1 then. Who\n" +
			"can write to the disk, and has the signing key, can also write another history: --known compares\n" +
			"with checkpoints that were kept elsewhere, such as by the syslog server of audit.syslog.",
		Example: "  sessionctl history verify\n  sessionctl history verify default",
		Args:    args(cobra.MaximumNArgs(1)),
		ValidArgsFunction: func(c *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
			return a.groupNames(c.Context(), typed), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, given []string) error {
			if len(given) > 0 {
				req.Group = given[0]
			}
			for _, file := range known {
				text, err := os.ReadFile(file)
				if err != nil {
					return usagef("--known: %w", err)
				}
				req.KnownCheckpoints = append(req.KnownCheckpoints, checkpointsIn(string(text))...)
			}
			if len(known) > 0 && len(req.GetKnownCheckpoints()) == 0 {
				return usagef("--known: there is no checkpoint in %s", strings.Join(known, ", "))
			}
			return a.verify(c.Context(), req)
		},
	}
	c.Flags().StringArrayVar(&known, "known", nil, "a `file` with a signed checkpoint, or a copy of the audit trail")
	return c
}

var verifiedHeader = []string{"GROUP", "FILES", "RECORDS", "ENTRIES", "FLAW"}

func (a historyCommands) verify(ctx context.Context, req *pb.VerifyHistoryRequest) error {
	client, err := a.pasts()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.VerifyHistory(ctx, req)
	if err != nil {
		return err
	}
	out := newList(&a.printer, verifiedHeader, func(v *pb.VerifyHistoryResponse) []string {
		return []string{v.GetGroup(), number(v.GetFiles()), fmt.Sprint(v.GetRecords()), fmt.Sprint(v.GetEntries()), historyFlaw(v)}
	})
	out.nobody = "there is no history yet"
	var flaws []string
	key := ""
	err = eachMessage(stream.Recv, func(v *pb.VerifyHistoryResponse) error {
		if v.GetFlaw() != pb.HistoryFlaw_HISTORY_FLAW_UNSPECIFIED {
			flaws = append(flaws, fmt.Sprintf("the history of group %s is not as it was written: %s", v.GetGroup(), historyFlaw(v)))
		}
		key = v.GetPublicKey()
		return out.add(v)
	}, out.end)
	if err == nil && a.forPeople() && key != "" {
		_, err = fmt.Fprintf(a.stdout, "Public key: %s\n", key)
	}
	if err == nil && len(flaws) > 0 {
		err = errors.New(strings.Join(flaws, "; "))
	}
	return err
}

// historyFlaw describes the first flaw of a group; "none" without one.
func historyFlaw(v *pb.VerifyHistoryResponse) string {
	if v.GetFlaw() == pb.HistoryFlaw_HISTORY_FLAW_UNSPECIFIED {
		return "none"
	}
	kind := strings.ToLower(strings.TrimPrefix(v.GetFlaw().String(), "HISTORY_FLAW_"))
	return fmt.Sprintf("%s: record %d of %s: %s", kind, v.GetFlawNumber(), v.GetFlawFile(), v.GetDetail())
}

func (a historyCommands) backupCommand() *cobra.Command {
	var order orderFlags
	c := &cobra.Command{
		Use:     "backup FILE",
		Short:   "Write a copy of the history, a tar archive, while the daemon goes on",
		Long:    "Write a copy of the history to FILE, a tar archive that is made, or to - for the output. Unpacked into an\nempty directory it is a history. The signing key is not in it.",
		Example: "  sessionctl history backup - --reason weekly | gzip >history.tar.gz",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, given []string) error {
			req := &pb.BackupHistoryRequest{Reason: order.reason, RequestId: order.requestID, ValidateOnly: order.validateOnly}
			return a.backup(c.Context(), req, given[0])
		},
	}
	order.register(c)
	return c
}

func (a historyCommands) backup(ctx context.Context, req *pb.BackupHistoryRequest, name string) (err error) {
	client, err := a.pasts()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.BackupHistory(ctx, req)
	if err != nil {
		return err
	}
	to, octetsWritten := a.stdout.to, uint64(0)
	if name != "-" && !req.GetValidateOnly() {
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		to = f
		defer func() {
			if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
				err = errors.Join(err, os.Remove(name))
			}
		}()
	}
	err = eachMessage(stream.Recv, func(m *pb.BackupHistoryResponse) error {
		n, err := to.Write(m.GetData())
		octetsWritten += uint64(n)
		return err
	}, func() error { return nil })
	if err == nil && name != "-" {
		_, err = fmt.Fprintf(a.stderr, "%s written\n", octets(octetsWritten))
	}
	return err
}

func (a historyCommands) eraseCommand() *cobra.Command {
	req := &pb.EraseHistoryRequest{}
	var yes bool
	var order orderFlags
	c := &cobra.Command{
		Use:   "erase USER --reason TEXT",
		Short: "Remove the identity of a person from the history for ever",
		Long: "Remove the identity of a person from all records. These stay, without a name, and verify as before.\n" +
			"If the person is online, later records have the name again.",
		Example:           "  sessionctl history erase alice --reason request-815",
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, given []string) error {
			req.UserName = given[0]
			req.Reason, req.RequestId, req.ValidateOnly = order.reason, order.requestID, order.validateOnly
			if err := a.confirm(yes || order.validateOnly, func() (string, error) {
				return fmt.Sprintf("Erase %s from all records of the history? Nobody can bring that back.", given[0]), nil
			}); err != nil {
				return err
			}
			return a.erase(c.Context(), req)
		},
	}
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	order.register(c)
	return c
}

func (a historyCommands) erase(ctx context.Context, req *pb.EraseHistoryRequest) error {
	client, err := a.pasts()
	if err != nil {
		return err
	}
	ctx, cancel := a.bounded(ctx)
	defer cancel()
	res, err := client.EraseHistory(ctx, req)
	if err != nil {
		return err
	}
	if req.GetValidateOnly() {
		return a.tried(res, "erase %s", req.GetUserName())
	}
	return a.answer(res, "erased in "+plural(res.GetErased(), "record"))
}
