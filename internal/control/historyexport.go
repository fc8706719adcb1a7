package control

import (
	"net/netip"
	"time"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/access"
	"github.com/sessiond/sessiond/internal/audit"
	"github.com/sessiond/sessiond/internal/history"
	"github.com/sessiond/sessiond/internal/nat"
)

// maxCaseNumber bounds the octets of a case number.
const maxCaseNumber = 128

// exportPage is the number of records that are read at once.
const exportPage = 500

// historyExport answers one question of a lawful request.
type historyExport struct {
	past    History
	stream  pb.HistoryService_ExportHistoryServer
	head    *pb.ExportHistoryResponse // of each answer
	outside netip.Addr                // valid: the question is about it
	port    nat.Port
	at      time.Time
	filter  history.Filter
	sent    int
}

func (s *historyService) ExportHistory(req *pb.ExportHistoryRequest, stream pb.HistoryService_ExportHistoryServer) error {
	x, err := fromExport(req)
	if err != nil {
		return err
	}
	order, err := newOrder(stream.Context(), "ExportHistory", req)
	if err != nil {
		return err
	}
	past, err := s.past()
	if err != nil || req.GetValidateOnly() {
		return err
	}
	caller, _ := access.From(stream.Context())
	x.past, x.stream = past, stream
	x.head = &pb.ExportHistoryResponse{
		CaseNumber: req.GetCaseNumber(), Reason: req.GetReason(), AskedBy: caller.Name, AskedFrom: caller.Source,
		AskedAt: timestamp(s.now()), Question: questionText(req, &x.filter, x.at), PublicKey: past.PublicKey(),
	}
	entry := func(e *audit.Entry) {
		e.Group, e.Keys = req.GetGroup(), []string{"case " + req.GetCaseNumber(), x.head.GetQuestion()}
	}
	_, err = s.audits.Ordered(audit.With(stream.Context(), order), entry, func() (int, error) {
		err := x.answer(req.GetGroup())
		return x.sent, err
	})
	return err
}

// fromExport reads and checks a question.
func fromExport(req *pb.ExportHistoryRequest) (x *historyExport, err error) {
	x = &historyExport{}
	switch n := len(req.GetCaseNumber()); {
	case n == 0:
		return nil, invalid("case_number", "is required; write the number of the request")
	case n > maxCaseNumber:
		return nil, invalid("case_number", "has %d octets; write at most %d", n, maxCaseNumber)
	case req.GetReason() == "":
		return nil, invalid("reason", "is required; write for whom and on which ground")
	}
	if req.GetOutsideAddress() == "" {
		if req.GetAt() != nil || req.GetPort() != 0 {
			return nil, invalid("outside_address", "is required with at or port")
		}
		x.filter, err = fromHistoryQuery(req)
		return x, err
	}
	if req.GetUserName() != "" || req.GetInsideAddress() != "" || req.GetFrom() != nil || req.GetTo() != nil {
		return nil, invalid("outside_address", "is another question than that for a subscriber; ask one of them")
	}
	if x.outside, err = fromAddr("outside_address", req.GetOutsideAddress()); err != nil {
		return nil, err
	}
	port, err := fromPort("port", req.GetPort())
	if err != nil {
		return nil, err
	}
	x.port = nat.Port(port)
	if x.at, err = fromTimestamp("at", req.GetAt()); err == nil && x.at.IsZero() {
		err = invalid("at", "is required; write the time of the question")
	}
	return x, err
}

// answer sends the answers.
func (x *historyExport) answer(group string) error {
	var err error
	switch {
	case !x.outside.IsValid():
		err = x.ports()
	case x.port == 0:
		err = x.holders(group)
	default:
		var a history.Answer
		if a, err = x.past.LookupOutside(history.Question{Group: group, Outside: x.outside, Port: x.port, At: x.at}); err != nil {
			return err
		}
		var m *pb.HistoryAnswer
		if m, err = toAnswer(x.past, &a, true); err == nil {
			err = x.send(m)
		}
	}
	if err == nil && x.sent == 0 {
		err = x.send(&pb.HistoryAnswer{Verdict: pb.HistoryVerdict_HISTORY_VERDICT_NOBODY})
	}
	return err
}

// ports answers which ports a subscriber had, and when that is not known.
func (x *historyExport) ports() error {
	for page := ""; ; {
		list, next, err := x.past.ListRecords(x.filter, page, exportPage)
		if err != nil {
			return err
		}
		if err := x.held(list); err != nil {
			return err
		}
		if page = next; page == "" {
			break
		}
	}
	for _, g := range gapsWithin(x.past, &x.filter) {
		if err := x.send(toUnknown(history.CauseGap, "in group "+g.Group+" from "+instant(g.From)+" to "+instant(g.To)+": "+g.Reason)); err != nil {
			return err
		}
	}
	first, through := reach(x.past, x.filter.Group)
	if x.filter.From.Before(first) {
		if err := x.send(toUnknown(history.CauseBefore, "the history begins at "+instant(first))); err != nil {
			return err
		}
	}
	if x.filter.To.IsZero() || x.filter.To.After(through) {
		return x.send(toUnknown(history.CauseNotRead, "the history ends at "+instant(through)))
	}
	return nil
}

// holders answers who had any port of an address.
func (x *historyExport) holders(group string) error {
	for page := ""; ; {
		list, err := x.past.ListHolders(group, x.outside, x.at, page, exportPage)
		if err != nil {
			return err
		}
		if err := x.held(list.Records); err != nil {
			return err
		}
		if list.Because != "" && list.Next == "" {
			return x.send(toUnknown(list.Because, list.Detail))
		}
		if page = list.Next; page == "" {
			return nil
		}
	}
}

// held sends records as answers.
func (x *historyExport) held(list []history.Record) error {
	for i := range list {
		m := &pb.HistoryAnswer{Verdict: pb.HistoryVerdict_HISTORY_VERDICT_HELD}
		if err := addRecord(x.past, m, &list[i], true); err != nil {
			return err
		}
		if err := x.send(m); err != nil {
			return err
		}
	}
	return nil
}

func (x *historyExport) send(a *pb.HistoryAnswer) error {
	h := x.head
	err := x.stream.Send(&pb.ExportHistoryResponse{
		CaseNumber: h.GetCaseNumber(), Reason: h.GetReason(), AskedBy: h.GetAskedBy(), AskedFrom: h.GetAskedFrom(),
		AskedAt: h.GetAskedAt(), Question: h.GetQuestion(), PublicKey: h.GetPublicKey(), Answer: a,
	})
	if err == nil {
		x.sent++
	}
	return err
}
