package control_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/control/controltest"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// watching begins a watch, and returns once no later event can be missed.
func watching(t *testing.T, c clients, req *pb.WatchSubscribersRequest) pb.SubscriberService_WatchSubscribersClient {
	t.Helper()
	stream, err := c.WatchSubscribers(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Header(); err != nil {
		t.Fatal(err)
	}
	return stream
}

func receive(t *testing.T, stream pb.SubscriberService_WatchSubscribersClient) *pb.WatchSubscribersResponse {
	t.Helper()
	res, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func TestWatchSubscribers(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	stream := watching(t, serve(t, b), &pb.WatchSubscribersRequest{
		UserName: "alice", Kinds: []pb.EventKind{pb.EventKind_EVENT_KIND_REAPED, pb.EventKind_EVENT_KIND_LIMIT_REACHED},
	})
	b.Publish(inspect.Event{Kind: inspect.EventReaped, Subscriber: b.Online[1]}) // bob
	b.Publish(inspect.Event{Kind: inspect.EventUpdated, Subscriber: b.Online[0]})
	b.Publish(inspect.Event{
		At: controltest.Now, Kind: inspect.EventReaped, End: subscriber.End{Reason: subscriber.ReasonStop},
		Subscriber: b.Online[0], SessionsEnded: 2,
	})
	e := receive(t, stream).GetEvent()
	if e.GetKind() != pb.EventKind_EVENT_KIND_REAPED || e.GetReason() != pb.Reason_REASON_STOP ||
		e.GetSessionsEnded() != 2 || e.GetSubscriber().GetUserName() != "alice" || e.GetResumeToken() == "" {
		t.Errorf("got %v", e)
	}
	b.Publish(inspect.Event{
		At: controltest.Now, Kind: inspect.EventLimitReached, Subscriber: b.Online[0], Limits: []nat.Limit{nat.LimitSessions, nat.LimitUDPPorts},
	})
	e = receive(t, stream).GetEvent()
	if e.GetKind() != pb.EventKind_EVENT_KIND_LIMIT_REACHED || !slices.Equal(e.GetLimits(), []string{"sessions", "udp_ports"}) {
		t.Errorf("got %v", e)
	}
}

// TestSlowWatcherIsEnded: a watcher that does not read does not block the
// publisher, and gets an error about the lost events; or, if it asked for that, their number.
func TestSlowWatcherIsEnded(t *testing.T) {
	t.Parallel()
	const published = 20_000
	b := controltest.Scene()
	c := serve(t, b)
	ended, warned := watching(t, c, &pb.WatchSubscribersRequest{}), watching(t, c, &pb.WatchSubscribersRequest{TellGaps: true})
	for range published {
		b.Publish(inspect.Event{Kind: inspect.EventUpdated, Subscriber: b.Online[0]})
	}
	for {
		if _, err := ended.Recv(); err != nil {
			if status.Code(err) != codes.Aborted || reason(err) != "WATCHER_LAGGED" {
				t.Errorf("the watch ended with %v", err)
			}
			break
		}
	}
	seen, missed := 0, 0
	for seen+missed < published {
		switch res := receive(t, warned); {
		case res.GetEvent() != nil:
			seen++
		case res.GetGap() != nil:
			missed += int(res.GetGap().GetMissed())
			if res.GetGap().GetCause() != pb.GapCause_GAP_CAUSE_BEHIND || !res.GetGap().GetListAgain() || res.GetResumeToken() == "" {
				t.Errorf("gap %v", res)
			}
		}
	}
	if seen+missed != published || missed == 0 {
		t.Errorf("%d events were seen and %d missed, of %d", seen, missed, published)
	}
	b.Publish(inspect.Event{Kind: inspect.EventCut, Subscriber: b.Online[0]})
	if e := receive(t, warned).GetEvent(); e.GetKind() != pb.EventKind_EVENT_KIND_CUT {
		t.Errorf("behind the gap: %v", e)
	}
}

// TestResumeToken: a watch goes on behind the token of an event, of the begin, and of progress.
func TestResumeToken(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	c := serve(t, b)
	first := watching(t, c, &pb.WatchSubscribersRequest{ProgressInterval: durationpb.New(100 * time.Millisecond)})
	begin := receive(t, first).GetResumeToken()
	for _, kind := range []inspect.EventKind{inspect.EventCreated, inspect.EventBound} {
		b.Publish(inspect.Event{Kind: kind, Subscriber: b.Online[0]})
	}
	created := next(t, first).GetResumeToken()
	bound := next(t, first).GetResumeToken()
	progress := receive(t, first)
	if progress.GetEvent() != nil || progress.GetResumeToken() != bound {
		t.Errorf("progress %v, want the token %s", progress, bound)
	}
	for token, want := range map[string]pb.EventKind{begin: pb.EventKind_EVENT_KIND_CREATED, created: pb.EventKind_EVENT_KIND_BOUND} {
		if e := receive(t, watching(t, c, &pb.WatchSubscribersRequest{ResumeToken: token})).GetEvent(); e.GetKind() != want {
			t.Errorf("behind %s: %v, want %v", token, e, want)
		}
	}
	last := watching(t, c, &pb.WatchSubscribersRequest{ResumeToken: bound})
	b.Publish(inspect.Event{Kind: inspect.EventCut, Subscriber: b.Online[0]})
	if e := receive(t, last).GetEvent(); e.GetKind() != pb.EventKind_EVENT_KIND_CUT {
		t.Errorf("behind the last: %v", e)
	}
}

// next returns the next event.
func next(t *testing.T, stream pb.SubscriberService_WatchSubscribersClient) *pb.SubscriberEvent {
	t.Helper()
	for {
		if e := receive(t, stream).GetEvent(); e != nil {
			return e
		}
	}
}

// TestTokenOfAnotherRun: a token that cannot be gone on from is refused with a reason of its
// own, or told as a gap.
func TestTokenOfAnotherRun(t *testing.T) {
	t.Parallel()
	before := serve(t, controltest.Scene())
	token := receive(t, watching(t, before, &pb.WatchSubscribersRequest{TellGaps: true})).GetResumeToken()
	b := controltest.Scene()
	b.Broadcaster = inspect.NewBroadcaster(inspect.BroadcasterOptions{Run: 2, Octets: 64 << 10})
	c := serve(t, b)
	stream, err := c.WatchSubscribers(t.Context(), &pb.WatchSubscribersRequest{ResumeToken: token})
	if err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.Aborted || reason(err) != "LIST_AGAIN" {
		t.Errorf("%v", err)
	}
	gap := receive(t, watching(t, c, &pb.WatchSubscribersRequest{ResumeToken: token, TellGaps: true}))
	if g := gap.GetGap(); g.GetCause() != pb.GapCause_GAP_CAUSE_RESTARTED || !g.GetListAgain() || gap.GetResumeToken() == "" {
		t.Errorf("%v", gap)
	}
	// With list the whole list follows the gap, also behind its token.
	listing := watching(t, c, &pb.WatchSubscribersRequest{ResumeToken: token, List: true})
	gap = receive(t, listing)
	if gap.GetGap() == nil || gap.GetResumeToken() == "" {
		t.Errorf("%v", gap)
	}
	checkList(t, listing, "100.64.0.7", "100.64.0.8")
	checkList(t, watching(t, c, &pb.WatchSubscribersRequest{ResumeToken: gap.GetResumeToken(), List: true}), "100.64.0.7", "100.64.0.8")
}

// checkList reads a list to its end, with the events that come in between.
func checkList(t *testing.T, stream pb.SubscriberService_WatchSubscribersClient, want ...string) (token string, events []*pb.SubscriberEvent) {
	t.Helper()
	var got []string
	for {
		res := receive(t, stream)
		if res.GetListed() {
			if token = res.GetResumeToken(); token == "" {
				t.Error("the list has no token")
			}
			break
		}
		e := res.GetEvent()
		switch listed := e.GetKind() == pb.EventKind_EVENT_KIND_LISTED; {
		case (res.GetResumeToken()+e.GetResumeToken() == "") != listed || (e == nil) != (res.GetListProgress() != nil):
			t.Fatalf("in the list: %v", res)
		case listed:
			got = append(got, e.GetSubscriber().GetInsideAddress())
		case e != nil:
			events = append(events, e)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("listed %v, want %v", got, want)
	}
	return token, events
}

// TestListThenWatch: a watch with list begins with all who are online and match, over several
// pages, and has every event since it began.
func TestListThenWatch(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	b.Looks = 1
	c := serve(t, b)
	token, _ := checkList(t, watching(t, c, &pb.WatchSubscribersRequest{List: true, UserName: "bob"}), "100.64.0.8")
	stream := watching(t, c, &pb.WatchSubscribersRequest{List: true, Kinds: []pb.EventKind{pb.EventKind_EVENT_KIND_CUT}})
	b.Publish(inspect.Event{Kind: inspect.EventCut, Subscriber: b.Online[0]}) // while it lists, perhaps
	_, events := checkList(t, stream, "100.64.0.7", "100.64.0.8")
	if len(events) == 0 {
		events = append(events, next(t, stream))
	}
	if e := events[0]; len(events) != 1 || e.GetKind() != pb.EventKind_EVENT_KIND_CUT || e.GetResumeToken() == "" {
		t.Errorf("beside the list: %v", events)
	}
	// One that goes on behind its list is not listed again.
	again := watching(t, c, &pb.WatchSubscribersRequest{List: true, ResumeToken: token})
	if res := receive(t, again); res.GetEvent() != nil || res.GetGap() != nil || res.GetListed() {
		t.Errorf("it begins with %v", res)
	}
	if e := receive(t, again).GetEvent(); e.GetKind() != pb.EventKind_EVENT_KIND_CUT {
		t.Errorf("then %v", e)
	}
	// A gap in the feed of a group lists that group again.
	b.Lose(inspect.Gap{Cause: inspect.GapFeed, Group: "default", ListAgain: true}, inspect.FeedPositions{})
	if res := receive(t, again); res.GetGap().GetCause() != pb.GapCause_GAP_CAUSE_FEED_LOST || res.GetGap().GetGroup() != "default" {
		t.Errorf("then %v", res)
	}
	checkList(t, again, "100.64.0.7", "100.64.0.8")
}

func TestWatchRequestsAreChecked(t *testing.T) {
	t.Parallel()
	c := serve(t, controltest.Scene())
	for name, req := range map[string]*pb.WatchSubscribersRequest{
		"inside":      {Inside: "x"},
		"no token":    {ResumeToken: "x"},
		"damaged":     {ResumeToken: "AAAAAAEAAAAAAAAABwA"},
		"too often":   {ProgressInterval: durationpb.New(time.Millisecond)},
		"too rarely":  {ProgressInterval: durationpb.New(2 * time.Hour)},
		"negative":    {ProgressInterval: &durationpb.Duration{Seconds: 1, Nanos: -1}},
		"no kind":     {Kinds: []pb.EventKind{0}},
		"listed":      {Kinds: []pb.EventKind{pb.EventKind_EVENT_KIND_LISTED}},
		"unknown one": {Kinds: []pb.EventKind{pb.EventKind_EVENT_KIND_CUT, 99}},
	} {
		stream, err := c.WatchSubscribers(t.Context(), req)
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != codes.InvalidArgument || reason(err) != "INVALID_FIELD" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestWatchTogether: a watch with several events in a message has the same events as one without, in
// the same order, with the same tokens, and gaps between them; a token from the middle of a message
// goes on there.
func TestWatchTogether(t *testing.T) {
	t.Parallel()
	const many = 2000
	b := controltest.Scene()
	b.Broadcaster = inspect.NewBroadcaster(inspect.BroadcasterOptions{Run: 1, Octets: 32 << 20})
	c := serve(t, b)
	each := watching(t, c, &pb.WatchSubscribersRequest{TellGaps: true})
	together := watching(t, c, &pb.WatchSubscribersRequest{TellGaps: true, Batch: true})
	for i := range many {
		e := inspect.Event{At: controltest.Now, Kind: inspect.EventUpdated, Subscriber: b.Online[i%2], SessionsEnded: i + 1}
		if i%100 == 0 {
			e.Subscriber.Class = strings.Repeat("x", 4000*(i%3))
		}
		b.Publish(e)
		if i%500 == 250 {
			b.Lose(inspect.Gap{Cause: inspect.GapFeed, Group: "default", ListAgain: true}, inspect.FeedPositions{})
		}
	}
	read := func(stream pb.SubscriberService_WatchSubscribersClient) (all []proto.Message, most, octets int) {
		t.Helper()
		for last := uint32(0); last < many; {
			res := receive(t, stream)
			if g := res.GetGap(); g != nil {
				all = append(all, g)
			}
			events := res.GetEvents()
			if res.GetEvent() != nil {
				events = append(events, res.GetEvent())
			}
			for _, e := range events {
				all = append(all, e)
				last = e.GetSessionsEnded()
			}
			if most = max(most, len(events)); len(events) > 1 {
				octets = max(octets, proto.Size(res))
			}
		}
		return all, most, octets
	}
	want, single, _ := read(each)
	got, most, octets := read(together)
	if single != 1 || most < 2 || most > 32 || octets > 32<<10 || len(got) != len(want) || len(want) < many+1 {
		t.Fatalf("%d messages have up to %d events in %d octets, %d have up to %d", len(got), most, octets, len(want), single)
	}
	for i := range want {
		if !proto.Equal(got[i], want[i]) {
			t.Fatalf("message %d is %v, want %v", i, got[i], want[i])
		}
	}
	middle := want[many/2].(*pb.SubscriberEvent)
	rest, _, _ := read(watching(t, c, &pb.WatchSubscribersRequest{ResumeToken: middle.GetResumeToken(), TellGaps: true, Batch: true}))
	if next := rest[0].(*pb.SubscriberEvent); next.GetSessionsEnded() != middle.GetSessionsEnded()+1 {
		t.Errorf("behind event %d comes %d", middle.GetSessionsEnded(), next.GetSessionsEnded())
	}
}

// TestListTogether: a list with several subscribers in a message has all of them, and the events between.
func TestListTogether(t *testing.T) {
	t.Parallel()
	b := newCrowd(1000, 4000)
	stream, err := serveCrowd(t, b).WatchSubscribers(t.Context(), &pb.WatchSubscribersRequest{List: true, Batch: true})
	if err != nil {
		t.Fatal(err)
	}
	m, messages := mirror{online: map[string]string{}, listing: true}, 0
	for m.listing {
		res := receive(t, stream)
		for _, e := range res.GetEvents() {
			m.take(&pb.WatchSubscribersResponse{Event: e})
		}
		m.take(res)
		messages++
		b.change(1)
	}
	b.change(1)
	b.mu.Lock()
	last := uint32(b.told)
	b.mu.Unlock()
	for len(m.numbers) == 0 || m.numbers[len(m.numbers)-1] < last {
		for _, e := range receive(t, stream).GetEvents() {
			m.take(&pb.WatchSubscribersResponse{Event: e})
		}
	}
	m.check(t, b)
	if messages > 300 || m.rows < 900 {
		t.Errorf("%d rows in %d messages", m.rows, messages)
	}
}
