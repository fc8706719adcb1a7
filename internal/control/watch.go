package control

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/metadata"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/inspect"
)

// Bounds of progress_interval.
const (
	minProgress = 100 * time.Millisecond
	maxProgress = time.Hour
)

func (s *subscriberService) WatchSubscribers(req *pb.WatchSubscribersRequest, stream pb.SubscriberService_WatchSubscribersServer) error {
	watch, list, err := fromWatchRequest(req)
	if err != nil {
		return err
	}
	w := eventStream{service: s, stream: stream, filter: watch.Filter, lists: req.GetList(), list: list, batch: watch.Together}
	watch.Busy = w.list.more
	ctx := stream.Context()
	messages, err := s.backend.Watch(ctx, watch)
	if err != nil {
		return err
	}
	if err := stream.SendHeader(metadata.MD{}); err != nil {
		return err
	}
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
	service *subscriberService
	stream  pb.SubscriberService_WatchSubscribersServer
	filter  inspect.SubscriberFilter
	lists   bool // at the begin, and after gaps
	list    watchList
	batch   bool // several events in a message
}

// token returns the resume token of a position, at which the list may not have come to its end.
func (w *eventStream) token(at inspect.Position) string {
	return watchToken(at, w.list.place(w.filter))
}

// send sends one message, or in place of one without an event the next page of the list.
func (w *eventStream) send(m *inspect.Message) error {
	switch {
	case m.Notice != nil && w.batch: // of a feed
		return w.sendTogether([]*inspect.Notice{m.Notice})
	case len(m.Together) > 0:
		return w.sendTogether(m.Together)
	case m.Notice != nil && w.list.more():
		return w.stream.Send(&pb.WatchSubscribersResponse{Event: w.eventBesideList(m.Notice)})
	case m.Notice != nil:
		message, err := m.Notice.Encoded(encodeNotice)
		if err != nil {
			return err
		}
		return w.stream.SendMsg(encodedMessage(message))
	case m.Gap != nil:
		if w.lists && m.Gap.ListAgain && !w.list.demand(w.gapGroup(m.Gap)) && m.Gap.Cause == inspect.GapFeed {
			return nil // the list that is to come shows all that is missing
		}
		return w.stream.Send(&pb.WatchSubscribersResponse{Gap: toGap(m.Gap), ResumeToken: w.token(m.Position)})
	case w.list.more():
		return w.page(m.Position)
	}
	return w.stream.Send(&pb.WatchSubscribersResponse{ResumeToken: w.token(m.Position)})
}

// eventBesideList returns an event whose token tells where the list is.
func (w *eventStream) eventBesideList(n *inspect.Notice) *pb.SubscriberEvent {
	e := toEvent(&n.Event)
	e.ResumeToken = w.token(n.Position())
	return e
}

// sendTogether sends events in as few messages as hold them, and clears the slice.
func (w *eventStream) sendTogether(notices []*inspect.Notice) error {
	if w.list.more() {
		res := &pb.WatchSubscribersResponse{}
		for _, n := range notices {
			res.Events = append(res.Events, w.eventBesideList(n))
		}
		clear(notices)
		return w.stream.Send(res)
	}
	for len(notices) > 0 {
		message, n, err := encodeTogether(notices)
		if err != nil {
			return err
		}
		clear(notices[:n])
		notices = notices[n:]
		if err := w.stream.SendMsg(message); err != nil {
			return err
		}
	}
	return nil
}

// gapGroup returns the group to list after a gap: of a watch of one group "", for all of its own.
func (w *eventStream) gapGroup(g *inspect.Gap) string {
	if w.filter.Group != "" {
		return ""
	}
	return g.Group
}

// fromWatchRequest returns the watch that is asked for, and its list.
func fromWatchRequest(req *pb.WatchSubscribersRequest) (w inspect.Watch, list watchList, err error) {
	if w.Filter, err = fromRecordQuery(req); err != nil {
		return w, list, err
	}
	if w.Kinds, err = fromEventKinds("kinds", req.GetKinds()); err != nil {
		return w, list, err
	}
	switch token := req.GetResumeToken(); {
	case token != "":
		position, place, err := parseResumeToken(token)
		if err != nil {
			return w, list, err
		}
		if w.After = &position; place != nil && req.GetList() {
			list = place.resumed(w.Filter)
		}
	case req.GetList():
		list.demand("")
	}
	if m := req.GetProgressInterval(); m != nil {
		w.Progress = m.AsDuration()
		if m.CheckValid() != nil || w.Progress < minProgress || w.Progress > maxProgress {
			return w, list, invalid("progress_interval", "must be %v to %v", minProgress, maxProgress)
		}
	}
	w.Gaps, w.Together = req.GetTellGaps() || req.GetList(), req.GetBatch()
	return w, list, nil
}

// isLost reports whether a watch ended because events were lost.
func isLost(err error) bool {
	return errors.Is(err, inspect.ErrLagging) || errors.Is(err, inspect.ErrListAgain)
}
