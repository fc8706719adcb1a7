package control

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/metadata"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// Bounds of progress_interval.
const (
	minProgress = 100 * time.Millisecond
	maxProgress = time.Hour
)

func (s *subscriberService) WatchSubscribers(req *pb.WatchSubscribersRequest, stream pb.SubscriberService_WatchSubscribersServer) error {
	watch, err := fromWatchRequest(req)
	if err != nil {
		return err
	}
	ctx := stream.Context()
	messages, err := s.backend.Watch(ctx, watch)
	if err != nil {
		return err
	}
	if err := stream.SendHeader(metadata.MD{}); err != nil {
		return err
	}
	w := eventStream{service: s, stream: stream, filter: watch.Filter, lists: req.GetList(), unlisted: req.GetList() && watch.After == nil}
	for m, err := range messages {
		if err != nil {
			return err
		}
		if err := w.send(&m); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return errStopping
}

// eventStream is one call of WatchSubscribers.
type eventStream struct {
	service  *subscriberService
	stream   pb.SubscriberService_WatchSubscribersServer
	filter   inspect.SubscriberFilter
	lists    bool // after gaps
	unlisted bool // the list at the begin was not sent
}

// send sends one message, and the list that has to follow it. Until the list is sent no
// message has a token, because a watch that goes on behind it would have no list.
func (w *eventStream) send(m *inspect.Message) error {
	switch {
	case m.Notice != nil:
		message, err := m.Notice.Encoded(encodeNotice)
		if err != nil {
			return err
		}
		return w.stream.SendMsg(encodedMessage(message))
	case m.Gap != nil:
		res := &pb.WatchSubscribersResponse{Gap: toGap(m.Gap)}
		if !w.lists || !m.Gap.ListAgain {
			res.ResumeToken = resumeToken(m.Position)
			return w.stream.Send(res)
		}
		if err := w.stream.Send(res); err != nil {
			return err
		}
		return w.list(m.Gap.Group, m.Position)
	case w.unlisted:
		w.unlisted = false
		return w.list("", m.Position)
	}
	return w.stream.Send(&pb.WatchSubscribersResponse{ResumeToken: resumeToken(m.Position)})
}

// list sends the subscribers online, of one group or all, and then the position behind which
// events follow.
func (w *eventStream) list(group string, behind inspect.Position) error {
	f := w.filter
	if group != "" {
		f.Group = group
	}
	for after := (subscriber.Key{}); ; {
		page, next, err := w.service.backend.Subscribers(w.stream.Context(), f, after, maxPageSize)
		if err != nil {
			return err
		}
		now := timestamp(w.service.now())
		for i := range page {
			err := w.stream.Send(&pb.WatchSubscribersResponse{Event: &pb.SubscriberEvent{
				At: now, Kind: pb.EventKind_EVENT_KIND_LISTED, Subscriber: toSubscriber(&page[i]),
			}})
			if err != nil {
				return err
			}
		}
		if next == (subscriber.Key{}) {
			return w.stream.Send(&pb.WatchSubscribersResponse{Listed: true, ResumeToken: resumeToken(behind)})
		}
		after = next
	}
}

func fromWatchRequest(req *pb.WatchSubscribersRequest) (w inspect.Watch, err error) {
	if w.Filter, err = fromRecordQuery(req); err != nil {
		return w, err
	}
	if w.Kinds, err = fromEventKinds("kinds", req.GetKinds()); err != nil {
		return w, err
	}
	if token := req.GetResumeToken(); token != "" {
		position, err := parseResumeToken(token)
		if err != nil {
			return w, err
		}
		w.After = &position
	}
	if m := req.GetProgressInterval(); m != nil {
		w.Progress = m.AsDuration()
		if m.CheckValid() != nil || w.Progress < minProgress || w.Progress > maxProgress {
			return w, invalid("progress_interval", "must be %v to %v", minProgress, maxProgress)
		}
	}
	w.Gaps = req.GetTellGaps() || req.GetList()
	return w, nil
}

// isLost reports whether a watch ended because events were lost.
func isLost(err error) bool {
	return errors.Is(err, inspect.ErrLagging) || errors.Is(err, inspect.ErrListAgain)
}
