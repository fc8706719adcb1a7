package control

import (
	"context"
	"net/netip"
	"strconv"
	"time"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/inspect"
)

// Bounds of ListTopSubscribers.
const (
	defaultTop    = 20
	defaultWindow = 2 * time.Second
	leastWindow   = time.Second
	mostWindow    = 30 * time.Second
)

type deskService struct {
	pb.UnimplementedDeskServiceServer
	backend Desk
	now     func() time.Time
}

func (s *deskService) ExplainSubscriber(ctx context.Context, req *pb.ExplainSubscriberRequest) (*pb.ExplainSubscriberResponse, error) {
	who := inspect.Customer{Group: req.GetGroup(), UserName: toOctets(req.GetUserName())}
	name := req.GetUserName()
	switch {
	case req.GetInsideAddress() != "" && who.UserName != "":
		return nil, invalid("user_name", "cannot be given beside inside_address; give one of them")
	case who.UserName == "":
		var err error
		if who.Inside, err = fromAddr("inside_address", req.GetInsideAddress()); err != nil {
			return nil, err
		}
		name = who.Inside.String()
	}
	list, err := s.backend.Explain(ctx, who)
	if err != nil {
		return nil, about("subscriber", name, err)
	}
	res := &pb.ExplainSubscriberResponse{}
	for i := range list {
		res.Explanations = append(res.Explanations, toExplanation(&list[i], s.now()))
	}
	return res, nil
}

func (s *deskService) ListEndings(ctx context.Context, req *pb.ListEndingsRequest) (*pb.ListEndingsResponse, error) {
	filter, err := fromEndingQuery(req)
	if err != nil {
		return nil, err
	}
	size, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	before, err := parseEndingToken(req.GetPageToken(), filter)
	if err != nil {
		return nil, err
	}
	page, err := s.backend.Endings(ctx, filter, before, size)
	if err != nil {
		return nil, err
	}
	res := &pb.ListEndingsResponse{CompleteSinceTime: timestamp(page.Since)}
	if page.Next != 0 {
		res.NextPageToken = endingToken(filter, page.Next)
	}
	for i := range page.List {
		res.Endings = append(res.Endings, toEnding(&page.List[i]))
	}
	return res, nil
}

// An endingToken has the number of the page's last ending.
func endingToken(f inspect.EndingFilter, number uint64) string {
	return newToken(scopeOf("endings", f), strconv.FormatUint(number, 10))
}

func parseEndingToken(token string, f inspect.EndingFilter) (uint64, error) {
	if token == "" {
		return 0, nil
	}
	parts, err := parseToken(token, scopeOf("endings", f), 1)
	if err != nil {
		return 0, err
	}
	number, err := strconv.ParseUint(parts[0], 10, 64)
	if err != nil {
		return 0, badToken()
	}
	return number, nil
}

func (s *deskService) ListTopSubscribers(ctx context.Context, req *pb.ListTopSubscribersRequest) (*pb.ListTopSubscribersResponse, error) {
	query, err := fromTopQuery(req)
	if err != nil {
		return nil, err
	}
	list, err := s.backend.Top(ctx, query)
	if err != nil {
		return nil, err
	}
	res := &pb.ListTopSubscribersResponse{}
	for i := range list {
		res.Subscribers = append(res.Subscribers, toTop(&list[i]))
	}
	return res, nil
}

func fromTopQuery(req *pb.ListTopSubscribersRequest) (q inspect.TopQuery, err error) {
	q = inspect.TopQuery{By: inspect.TopSessions, Limit: defaultTop, Group: req.GetGroup(), Window: defaultWindow}
	if req.GetBy() != pb.TopBy_TOP_BY_UNSPECIFIED {
		if q.By, err = fromEnum("by", req.GetBy(), topMeasures); err != nil {
			return q, err
		}
	}
	if req.GetPageSize() != 0 {
		if q.Limit, err = pageSize(req.GetPageSize()); err != nil {
			return q, err
		}
	}
	if q.Outside, err = fromPrefix("outside", req.GetOutside()); err != nil {
		return q, err
	}
	if w := req.GetWindow(); w != nil {
		q.Window = w.AsDuration()
		if w.CheckValid() != nil || q.Window < leastWindow || q.Window > mostWindow {
			return q, invalid("window", "must be %v to %v", leastWindow, mostWindow)
		}
	}
	return q, nil
}

func fromEndingQuery(q *pb.ListEndingsRequest) (f inspect.EndingFilter, err error) {
	f = inspect.EndingFilter{Group: q.GetGroup(), UserName: toOctets(q.GetUserName()), NAS: toOctets(q.GetNas())}
	for _, end := range []struct {
		name   string
		prefix *netip.Prefix
		text   string
	}{{"inside", &f.Inside, q.GetInside()}, {"outside", &f.Outside, q.GetOutside()}} {
		if *end.prefix, err = fromPrefix(end.name, end.text); err != nil {
			return f, err
		}
	}
	if f.Reason, err = fromEnum("reason", q.GetReason(), reasons); err != nil {
		return f, err
	}
	if f.Since, err = fromTimestamp("start_time", q.GetStartTime()); err != nil {
		return f, err
	}
	if f.Until, err = fromTimestamp("end_time", q.GetEndTime()); err != nil {
		return f, err
	}
	if !f.Until.IsZero() && !f.Since.Before(f.Until) {
		return f, invalid("end_time", "must be after start_time")
	}
	return f, nil
}
