package control

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/audit"
	"github.com/sessiond/sessiond/internal/history"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
)

type historyService struct {
	pb.UnimplementedHistoryServiceServer
	past   func() (History, error)
	audits Audits
	now    func() time.Time
}

// pastAnswer returns the answer of the history about a port at a time; nil where there is none, or
// where the binding in force of an inside address had the port then, and the history does not say so.
func (s *natService) pastAnswer(req *pb.LookupOutsideRequest, outside netip.Addr, port nat.Port, at time.Time, inForce netip.Addr) (*pb.HistoryAnswer, error) {
	past, err := s.past()
	if errors.Is(err, inspect.ErrNoHistory) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	a, err := past.LookupOutside(history.Question{Outside: outside, Port: port, At: at})
	if err != nil || inForce.IsValid() && (a.State != history.Held || a.Record.Holder.Inside != inForce) {
		return nil, err
	}
	return toAnswer(past, &a, req.GetProof())
}

// candidates lists the holders of all ports of an address at a time.
func (s *natService) candidates(req *pb.LookupOutsideRequest, outside netip.Addr, at time.Time) (*pb.LookupOutsideResponse, error) {
	if at.IsZero() {
		return nil, invalid("port", "is required without a time in the past; write 1 to 65535, or ask ListBindings who has the address now")
	}
	size, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	past, err := s.past()
	if err != nil {
		return nil, about("outside_address", outside.String(), err)
	}
	scope := scopeOf("candidates", []any{outside, at.UnixMicro()})
	page, err := parsePastToken(req.GetPageToken(), scope)
	if err != nil {
		return nil, err
	}
	list, err := past.ListHolders("", outside, at, page, size)
	if err != nil {
		return nil, err
	}
	res := &pb.LookupOutsideResponse{NextPageToken: pastToken(list.Next, scope)}
	for i := range list.Records {
		m, err := completeRecord(past, &list.Records[i])
		if err != nil {
			return nil, err
		}
		res.Candidates = append(res.Candidates, m)
	}
	if list.Because != "" {
		res.Answer = toUnknown(list.Because, list.Detail)
	}
	return res, nil
}

// pastToken makes the token of a page of the history; "" for none.
func pastToken(page, scope string) string {
	if page == "" {
		return ""
	}
	return newToken(scope, page)
}

func parsePastToken(token, scope string) (string, error) {
	if token == "" {
		return "", nil
	}
	parts, err := parseToken(token, scope, 1)
	if err != nil {
		return "", err
	}
	return parts[0], nil
}

func (s *historyService) ListHistory(_ context.Context, req *pb.ListHistoryRequest) (*pb.ListHistoryResponse, error) {
	filter, err := fromHistoryQuery(req)
	if err != nil {
		return nil, err
	}
	size, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	past, err := s.past()
	if err != nil {
		return nil, err
	}
	page, err := parsePastToken(req.GetPageToken(), scopeOf("history", filter))
	if err != nil {
		return nil, err
	}
	list, next, err := past.ListRecords(filter, page, size)
	if err != nil {
		return nil, err
	}
	res := &pb.ListHistoryResponse{NextPageToken: pastToken(next, scopeOf("history", filter))}
	for i := range list {
		m, err := completeRecord(past, &list[i])
		if err != nil {
			return nil, err
		}
		res.Records = append(res.Records, m)
	}
	first, through := reach(past, filter.Group)
	res.BeginsAt, res.KnownUntil = timestamp(first), timestamp(through)
	for _, g := range gapsWithin(past, &filter) {
		res.Gaps = append(res.Gaps, &pb.HistoryGap{Group: g.Group, From: timestamp(g.From), To: timestamp(g.To), Reason: g.Reason})
	}
	return res, nil
}

// historyQuery is a question about the ports of a subscriber.
type historyQuery interface {
	GetGroup() string
	GetUserName() string
	GetInsideAddress() string
	GetFrom() *timestamppb.Timestamp
	GetTo() *timestamppb.Timestamp
}

func fromHistoryQuery(q historyQuery) (f history.Filter, err error) {
	f.Group = q.GetGroup()
	if f.User, err = fromText("user_name", q.GetUserName()); err != nil {
		return f, err
	}
	if q.GetInsideAddress() != "" {
		if f.Inside, err = fromAddr("inside_address", q.GetInsideAddress()); err != nil {
			return f, err
		}
	}
	if f.User == "" && !f.Inside.IsValid() {
		return f, invalid("user_name", "or inside_address is required; write whose ports are asked for")
	}
	if f.From, err = fromTimestamp("from", q.GetFrom()); err != nil {
		return f, err
	}
	if f.To, err = fromTimestamp("to", q.GetTo()); err != nil {
		return f, err
	}
	if !f.To.IsZero() && !f.From.Before(f.To) {
		return f, invalid("to", "must be after from")
	}
	return f, nil
}

// reach returns the time from which on, and that until which, the history of a group, or those of all
// for "", are known.
func reach(past History, group string) (first, through time.Time) {
	for _, name := range past.Groups() {
		p, ok := past.Progress(name)
		if !ok || group != "" && group != name {
			continue
		}
		if first.IsZero() || p.First.After(first) {
			first = p.First
		}
		if through.IsZero() || p.Through.Before(through) {
			through = p.Through
		}
	}
	return first, through
}

// gapsWithin returns the gaps within the time of a filter.
func gapsWithin(past History, f *history.Filter) (gaps []history.Gap) {
	for _, name := range past.Groups() {
		p, _ := past.Progress(name)
		for _, g := range p.Gaps {
			if (f.Group == "" || f.Group == name) && (f.From.IsZero() || g.To.After(f.From)) && (f.To.IsZero() || g.From.Before(f.To)) {
				gaps = append(gaps, g)
			}
		}
	}
	return gaps
}

func (s *historyService) VerifyHistory(req *pb.VerifyHistoryRequest, stream pb.HistoryService_VerifyHistoryServer) error {
	past, err := s.past()
	if err != nil {
		return err
	}
	groups := past.Groups()
	if req.GetGroup() != "" {
		groups = []string{req.GetGroup()}
	}
	for _, group := range groups {
		list, err := past.Verify(stream.Context(), group, req.GetKnownCheckpoints()...)
		switch {
		case errors.Is(err, history.ErrCheckpoint):
			return invalid("known_checkpoints", "%v", err)
		case err != nil:
			return err
		case len(list) == 0:
			return about("group", group, inspect.ErrNotFound)
		}
		if err := stream.Send(toVerified(&list[0], past.PublicKey())); err != nil {
			return err
		}
	}
	return nil
}

// backupPiece is the number of octets of a message of BackupHistory at most.
const backupPiece = 64 << 10

// pieces sends what is written to it.
type pieces struct {
	stream pb.HistoryService_BackupHistoryServer
}

// Write implements io.Writer.
func (p *pieces) Write(data []byte) (n int, err error) {
	for len(data) > 0 && err == nil {
		size := min(len(data), backupPiece)
		err = p.stream.Send(&pb.BackupHistoryResponse{Data: append([]byte(nil), data[:size]...)}) // gRPC may hold the message
		n, data = n+size, data[size:]
	}

	return n, err
}

func (s *historyService) BackupHistory(req *pb.BackupHistoryRequest, stream pb.HistoryService_BackupHistoryServer) error {
	order, err := newOrder(stream.Context(), "BackupHistory", req)
	if err != nil {
		return err
	}
	past, err := s.past()
	if err != nil || req.GetValidateOnly() {
		return err
	}
	groups := past.Groups()
	entry := func(e *audit.Entry) { e.Count, e.Keys = len(groups), groups }
	_, err = s.audits.Ordered(audit.With(stream.Context(), order), entry, func() (int, error) {
		return len(groups), past.Backup(&pieces{stream: stream})
	})
	return err
}

func (s *historyService) EraseHistory(ctx context.Context, req *pb.EraseHistoryRequest) (*pb.EraseHistoryResponse, error) {
	user, err := fromText("user_name", req.GetUserName())
	switch {
	case err != nil:
		return nil, err
	case user == "":
		return nil, invalid("user_name", "is required; write whose identity is to be erased")
	case req.GetReason() == "":
		return nil, invalid("reason", "is required; write the number of the request")
	}
	past, err := s.past()
	if err != nil || req.GetValidateOnly() {
		return &pb.EraseHistoryResponse{}, err
	}
	entry := func(e *audit.Entry) { e.Keys = []string{pseudonym(user)} }
	n, err := s.audits.Ordered(ctx, entry, func() (int, error) { return past.Erase(user) })
	if err != nil {
		return nil, err
	}
	return &pb.EraseHistoryResponse{Erased: count(n)}, nil
}

// pseudonym stands in the audit trail for a user whose name is erased: who knows the name can find
// the entry.
func pseudonym(user string) string {
	sum := sha256.Sum256([]byte(user))
	return "sha256:" + hex.EncodeToString(sum[:])
}

var historyCauses = map[history.Cause]pb.HistoryCause{
	history.CauseGap: pb.HistoryCause_HISTORY_CAUSE_GAP, history.CauseRelease: pb.HistoryCause_HISTORY_CAUSE_RELEASE,
	history.CauseConflict: pb.HistoryCause_HISTORY_CAUSE_CONFLICT, history.CauseBefore: pb.HistoryCause_HISTORY_CAUSE_BEFORE,
	history.CauseNotRead: pb.HistoryCause_HISTORY_CAUSE_NOT_READ, history.CauseMissing: pb.HistoryCause_HISTORY_CAUSE_MISSING,
	history.CauseDamaged: pb.HistoryCause_HISTORY_CAUSE_DAMAGED, history.CauseNoGroup: pb.HistoryCause_HISTORY_CAUSE_NO_GROUP,
}

var historyFlaws = map[history.FlawKind]pb.HistoryFlaw{
	history.FlawChanged: pb.HistoryFlaw_HISTORY_FLAW_CHANGED, history.FlawMissing: pb.HistoryFlaw_HISTORY_FLAW_MISSING,
	history.FlawTruncated: pb.HistoryFlaw_HISTORY_FLAW_TRUNCATED, history.FlawUnsigned: pb.HistoryFlaw_HISTORY_FLAW_UNSIGNED,
}

func toUnknown(because history.Cause, detail string) *pb.HistoryAnswer {
	return &pb.HistoryAnswer{Verdict: pb.HistoryVerdict_HISTORY_VERDICT_UNKNOWN, Cause: historyCauses[because], Detail: detail}
}

func toAnswer(past History, a *history.Answer, proof bool) (*pb.HistoryAnswer, error) {
	m := &pb.HistoryAnswer{Verdict: pb.HistoryVerdict_HISTORY_VERDICT_NOBODY, InQuarantine: a.Quarantined}
	switch {
	case a.State == history.Unknown:
		return toUnknown(a.Because, a.Detail), nil
	case a.State == history.Held:
		m.Verdict = pb.HistoryVerdict_HISTORY_VERDICT_HELD
	case !a.LastKnown:
		return m, nil
	}
	return m, addRecord(past, m, &a.Record, proof)
}

// addRecord adds a record to an answer, as the newest file knows it, and its proof, by the newest file
// that is complete.
func addRecord(past History, m *pb.HistoryAnswer, r *history.Record, proof bool) error {
	whole, err := past.Complete(*r)
	if err != nil {
		return err
	}
	m.Record = toHistoryRecord(&whole)
	if !proof {
		return nil
	}
	text, err := past.Prove(whole)
	for earlier := whole; errors.Is(err, history.ErrRunning) && earlier.File > 1; { // does not know the release
		earlier.File--
		if proof, e := past.Prove(earlier); e == nil {
			text, err = proof, nil
		} else if !errors.Is(e, history.ErrRunning) {
			break
		}
	}
	if m.Proof = string(text); err != nil {
		m.ProofMissing = err.Error()
	}
	return nil
}

func completeRecord(past History, r *history.Record) (*pb.HistoryRecord, error) {
	whole, err := past.Complete(*r)
	if err != nil {
		return nil, err
	}
	return toHistoryRecord(&whole), nil
}

func toHistoryRecord(r *history.Record) *pb.HistoryRecord {
	h := &r.Holder
	m := &pb.HistoryRecord{
		Group: r.Group, InsideAddress: addrText(h.Inside), OutsideAddress: addrText(r.Outside), FirstPort: uint32(r.First), LastPort: uint32(r.Last),
		UserName: toText(h.UserName), Client: toText(h.Client), Nas: toText(h.NAS), NasAddress: addrText(h.NASAddress),
		AcctSessionId: toText(h.AcctSessionID), CallingStationId: toText(h.CallingStationID),
		AllocatedAt: timestamp(r.Allocated), ReleasedAt: timestamp(r.Released), ReleasedBy: timestamp(r.ReleasedBy),
		KnownUntil: timestamp(r.Through), Erased: r.Erased, File: r.File,
	}
	for _, p := range h.IPv6Prefixes {
		m.Ipv6Prefixes = append(m.Ipv6Prefixes, p.String())
	}
	return m
}

func toVerified(v *history.Verified, key string) *pb.VerifyHistoryResponse {
	m := &pb.VerifyHistoryResponse{
		Group: v.Group, Files: uint32(min(uint64(v.Files), math.MaxUint32)), Records: v.Records, Entries: v.Entries, Checkpoints: v.Checkpoints, PublicKey: key,
	}
	if f := v.Flaw; f != nil {
		m.Flaw, m.FlawFile, m.FlawNumber, m.Detail = historyFlaws[f.Kind], f.File, f.Number, f.Detail
	}
	return m
}

// questionText writes a question for a person.
func questionText(req *pb.ExportHistoryRequest, f *history.Filter, at time.Time) string {
	if req.GetOutsideAddress() != "" {
		if req.GetPort() == 0 {
			return fmt.Sprintf("who had %s at %s", req.GetOutsideAddress(), instant(at))
		}
		return fmt.Sprintf("who had %s:%d at %s", req.GetOutsideAddress(), req.GetPort(), instant(at))
	}
	text := "which ports had"
	if f.User != "" {
		text += fmt.Sprintf(" the user %q", toText(f.User))
	}
	if f.Inside.IsValid() {
		text += " the inside address " + f.Inside.String()
	}
	if !f.From.IsZero() {
		text += " from " + instant(f.From)
	}
	if !f.To.IsZero() {
		text += " to " + instant(f.To)
	}
	return text
}

func instant(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
