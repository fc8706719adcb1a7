package control

import (
	"context"
	"fmt"
	"math"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/audit"
)

type auditService struct {
	pb.UnimplementedAuditServiceServer
	backend Audits
}

func (s *auditService) ListAudit(ctx context.Context, req *pb.ListAuditRequest) (*pb.ListAuditResponse, error) {
	filter, err := fromAuditQuery(req)
	if err != nil {
		return nil, err
	}
	size, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	after, err := parseAuditToken(req.GetPageToken(), filter)
	if err != nil {
		return nil, err
	}
	page, err := s.backend.ListAudit(ctx, filter, after, size)
	if err != nil {
		return nil, err
	}
	res := &pb.ListAuditResponse{}
	if page.Next != (audit.Place{}) {
		res.NextPageToken = auditToken(filter, page.Next)
	}
	for i := range page.Entries {
		res.Entries = append(res.Entries, toAuditEntry(&page.Entries[i]))
	}
	for _, u := range page.Unread {
		res.Unread = append(res.Unread, &pb.UnreadTrail{Trail: u.Trail, Problem: u.Err.Error()})
	}
	return res, nil
}

func (s *auditService) VerifyAudit(ctx context.Context, req *pb.VerifyAuditRequest) (*pb.VerifyAuditResponse, error) {
	checked, err := s.backend.VerifyAudit(ctx, req.GetTrail())
	if err != nil {
		return nil, about("trail", req.GetTrail(), err)
	}
	res := &pb.VerifyAuditResponse{}
	for i := range checked {
		res.Trails = append(res.Trails, toTrailCheck(&checked[i]))
	}
	return res, nil
}

func fromAuditQuery(q *pb.ListAuditRequest) (f audit.Filter, err error) {
	f = audit.Filter{Actor: q.GetActor(), Method: q.GetMethod(), Group: q.GetGroup(), RequestID: q.GetRequestId()}
	if f.From, err = fromTimestamp("from", q.GetFrom()); err != nil {
		return f, err
	}
	if f.To, err = fromTimestamp("to", q.GetTo()); err != nil {
		return f, err
	}
	if !f.From.IsZero() && !f.To.IsZero() && !f.From.Before(f.To) {
		return f, invalid("to", "is not after from")
	}
	return f, nil
}

var auditOutcomes = map[audit.Outcome]pb.AuditOutcome{
	audit.Done: pb.AuditOutcome_AUDIT_OUTCOME_DONE, audit.Ordered: pb.AuditOutcome_AUDIT_OUTCOME_ORDERED,
	audit.Failed: pb.AuditOutcome_AUDIT_OUTCOME_FAILED, audit.TakenBack: pb.AuditOutcome_AUDIT_OUTCOME_TAKEN_BACK,
}

var auditFlaws = map[audit.FlawKind]pb.AuditFlaw{
	audit.Changed: pb.AuditFlaw_AUDIT_FLAW_CHANGED, audit.Missing: pb.AuditFlaw_AUDIT_FLAW_MISSING,
	audit.Swapped: pb.AuditFlaw_AUDIT_FLAW_SWAPPED, audit.Truncated: pb.AuditFlaw_AUDIT_FLAW_TRUNCATED,
}

func toAuditEntry(e *audit.Entry) *pb.AuditEntry {
	m := &pb.AuditEntry{
		Id: e.ID(), At: timestamppb.New(e.At), Actor: e.Actor, Role: e.Role, Source: e.Source,
		Method: e.Method, Group: e.Group, RequestId: e.RequestID, Reason: e.Reason,
		Outcome: auditOutcomes[e.Outcome], Part: count(e.Part), Count: count(e.Count), Keys: e.Keys,
		Old: e.Old, New: e.New, Error: e.Error, Node: e.Node, PreviousHash: e.Before,
	}
	if e.Of != 0 {
		m.OrderId = entryID(e.Trail, e.Of)
	}
	return m
}

func entryID(trail string, number uint64) string { return fmt.Sprintf("%s/%d", trail, number) }

func toTrailCheck(v *audit.Verified) *pb.TrailCheck {
	m := &pb.TrailCheck{Trail: v.Trail, Unread: v.Unread, LastHash: v.Last.Hash, Entries: uint32(min(v.Entries, math.MaxUint32))}
	if v.First != 0 {
		m.FirstId = entryID(v.Trail, v.First)
	}
	if v.Last.Number != 0 {
		m.LastId = entryID(v.Trail, v.Last.Number)
	}
	if v.Flaw != nil {
		m.Flaw, m.FlawId, m.Detail = auditFlaws[v.Flaw.Kind], entryID(v.Trail, v.Flaw.Number), v.Flaw.Detail
	}
	return m
}

func auditToken(f audit.Filter, p audit.Place) string {
	return newToken(scopeOf("audit", f), p.ID, p.Trail)
}

func parseAuditToken(token string, f audit.Filter) (audit.Place, error) {
	if token == "" {
		return audit.Place{}, nil
	}
	parts, err := parseToken(token, scopeOf("audit", f), 2)
	if err != nil {
		return audit.Place{}, err
	}
	if strings.Trim(parts[0], "0123456789-") != "" || parts[0] == "" {
		return audit.Place{}, badToken()
	}
	return audit.Place{ID: parts[0], Trail: parts[1]}, nil
}
