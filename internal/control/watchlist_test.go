package control_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/control"
	"github.com/sessiond/sessiond/internal/control/controltest"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// crowdBackend has many subscribers, whose records change all the time.
type crowdBackend struct {
	*controltest.Backend
	random *rand.Rand

	mu      sync.Mutex
	version []int // of each record; 0 while it is offline
	told    int   // events
	lists   int   // that were begun
}

// newCrowd returns n subscribers, and keeps the newest events of about so many.
func newCrowd(n, kept int) *crowdBackend {
	b := &crowdBackend{Backend: controltest.Scene(), random: rand.New(rand.NewPCG(9, uint64(n))), version: make([]int, n)}
	b.Broadcaster = inspect.NewBroadcaster(inspect.BroadcasterOptions{Run: 1, Octets: 1500 * kept, Keep: time.Minute})
	for i := range b.version {
		b.version[i] = 1
	}
	return b
}

func (b *crowdBackend) viewLocked(i int) (s inspect.Subscriber) {
	s.Group, s.Inside = "default", netip.AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)})
	s.UserName = fmt.Sprint(b.version[i])
	return s
}

// Subscribers implements control.Subscribers.
func (b *crowdBackend) Subscribers(_ context.Context, _ inspect.SubscriberFilter, after subscriber.Key, limit int) (page []inspect.Subscriber, next subscriber.Key, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	first := 0
	if after != (subscriber.Key{}) {
		a := after.Inside.As4()
		first = int(a[2])<<8 + int(a[3]) + 1
	} else {
		b.lists++
	}
	for i := first; i < len(b.version); i++ {
		switch {
		case b.version[i] == 0:
		case len(page) == limit:
			return page, page[limit-1].Key, nil
		default:
			page = append(page, b.viewLocked(i))
		}
	}
	return page, next, nil
}

// change changes some records, each with its event. SessionsEnded numbers the events.
func (b *crowdBackend) change(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for range n {
		i := b.random.IntN(len(b.version))
		b.told++
		e := inspect.Event{Kind: inspect.EventUpdated, SessionsEnded: b.told}
		switch {
		case b.version[i] == 0:
			e.Kind = inspect.EventCreated
		case b.random.IntN(4) == 0:
			e.Kind = inspect.EventDeleted
		}
		b.version[i] = b.told + 1
		if e.Subscriber = b.viewLocked(i); e.Kind == inspect.EventDeleted {
			b.version[i] = 0
		}
		b.Publish(e)
	}
}

// mirror is who is online, as a watch tells it.
type mirror struct {
	online  map[string]string
	numbers []uint32 // of the events
	rows    int      // LISTED events
	gaps    int
	listed  int
	listing bool
	token   string
}

func (m *mirror) take(res *pb.WatchSubscribersResponse) {
	e := res.GetEvent()
	s := e.GetSubscriber()
	switch {
	case res.GetGap().GetListAgain():
		m.gaps++
		m.listing = true
		clear(m.online)
	case e.GetKind() == pb.EventKind_EVENT_KIND_LISTED:
		m.rows++
		m.online[s.GetInsideAddress()] = s.GetUserName()
	case e.GetKind() == pb.EventKind_EVENT_KIND_DELETED:
		delete(m.online, s.GetInsideAddress())
	case e != nil:
		m.online[s.GetInsideAddress()] = s.GetUserName()
	}
	if e != nil && e.GetKind() != pb.EventKind_EVENT_KIND_LISTED {
		m.numbers = append(m.numbers, e.GetSessionsEnded())
	}
	if res.GetListed() {
		m.listed++
		m.listing = false
	}
	if token := res.GetResumeToken() + e.GetResumeToken(); token != "" {
		m.token = token
	}
}

// check compares the mirror with those who are online.
func (m *mirror) check(t *testing.T, b *crowdBackend) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	online := 0
	for i, version := range b.version {
		if version == 0 {
			continue
		}
		online++
		if s := b.viewLocked(i); m.online[s.Inside.String()] != s.UserName {
			t.Errorf("%v is %q in the mirror, want %q", s.Inside, m.online[s.Inside.String()], s.UserName)
			return
		}
	}
	if len(m.online) != online {
		t.Errorf("%d are in the mirror, and %d online", len(m.online), online)
	}
}

func serveCrowd(t *testing.T, b *crowdBackend) pb.SubscriberServiceClient {
	t.Helper()
	server := controltest.Serve(t, b.Backend, func(o *control.Options) { o.Subscribers = b })
	return pb.NewSubscriberServiceClient(dial(t, server.Address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithInitialWindowSize(1<<16), grpc.WithInitialConnWindowSize(1<<16))) // and no more, whatever the rate
}

// TestSlowListEnds_I10: a list then watch comes to its end and to the truth, with many more events
// while it lists than are kept, as long as its reader takes messages faster than events come. One
// that is slower is told so, and comes to its end when the events let it.
func TestSlowListEnds_I10(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		events, of int // events for so many messages that the reader takes
		gaps       bool
	}{{0, 1, false}, {1, 2, false}, {4, 5, false}, {3, 2, true}} {
		t.Run(fmt.Sprintf("%d in %d", c.events, c.of), func(t *testing.T) {
			t.Parallel()
			const n, kept = 6500, 3000 // some 1,000 messages are on their way
			b := newCrowd(n, kept)
			client := serveCrowd(t, b)
			stream, err := client.WatchSubscribers(t.Context(), &pb.WatchSubscribersRequest{List: true})
			if err != nil {
				t.Fatal(err)
			}
			m, taken := mirror{online: map[string]string{}, listing: true}, 0
			take := func() {
				res, err := stream.Recv()
				if err != nil {
					t.Fatal(err)
				}
				m.take(res)
			}
			for m.listed == 0 && m.gaps < 3 {
				take()
				if taken++; taken%c.of == 0 {
					b.change(c.events)
				}
			}
			b.mu.Lock()
			told, lists := b.told, b.lists
			b.mu.Unlock()
			t.Logf("%d rows and %d events of %d for a list of %d, %d gaps, %d lists", m.rows, len(m.numbers), told, n, m.gaps, lists)
			switch {
			case c.gaps && m.gaps == 0, !c.gaps && (m.gaps > 0 || m.rows > n+told || lists != 1), !c.gaps && c.events > 0 && told < 3*kept/2:
				t.Errorf("%d gaps, %d rows, %d lists, %d events", m.gaps, m.rows, lists, told)
			}
			for m.listing { // no events any more, but that the last one may be missing
				take()
			}
			b.change(1)
			last := uint32(told + 1)
			for m.listing || len(m.numbers) == 0 || m.numbers[len(m.numbers)-1] < last {
				take()
			}
			m.check(t, b)
			if !c.gaps && (!slices.IsSorted(m.numbers) || len(m.numbers) != int(last)) {
				t.Errorf("%d events came of %d", len(m.numbers), last)
			}
		})
	}
}

// TestListGoesOnWhereItWas: a list then watch that is disconnected again and again goes on with its
// list, and gets each event once.
func TestListGoesOnWhereItWas(t *testing.T) {
	t.Parallel()
	const n = 3000
	b := newCrowd(n, 4000)
	client := serveCrowd(t, b)
	random := rand.New(rand.NewPCG(6, 14))
	m := mirror{online: map[string]string{}, listing: true}
	connects := 0
	for m.listed == 0 || connects < 100 {
		ctx, leave := context.WithCancel(t.Context())
		stream, err := client.WatchSubscribers(ctx, &pb.WatchSubscribersRequest{List: true, ResumeToken: m.token})
		if err != nil {
			t.Fatal(err)
		}
		for range 300 + random.IntN(300) {
			if random.IntN(3) == 0 || !m.listing {
				b.change(1)
			}
			res, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			m.take(res)
		}
		leave()
		connects++
		if m.listed > 0 && connects%10 == 0 {
			b.Lose(inspect.Gap{Cause: inspect.GapFeed, Group: "default", ListAgain: true}, inspect.FeedPositions{})
		}
	}
	b.mu.Lock()
	last, lists := b.told, b.lists
	b.mu.Unlock()
	stream, err := client.WatchSubscribers(t.Context(), &pb.WatchSubscribersRequest{List: true, ResumeToken: m.token})
	if err != nil {
		t.Fatal(err)
	}
	b.change(1)
	for m.listing || m.numbers[len(m.numbers)-1] != uint32(last+1) {
		res, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		m.take(res)
	}
	for i, number := range m.numbers { // a few came before the watch began
		if number != m.numbers[0]+uint32(i) || m.numbers[0] > 300 {
			t.Fatalf("event %d came %d behind event %d", number, i, m.numbers[0])
		}
	}
	m.check(t, b)
	t.Logf("%d connects, %d events, %d gaps, %d lists, %d listed, %d rows", connects, last, m.gaps, lists, m.listed, m.rows)
	if connects < 100 || m.gaps < 2 || m.rows < 2*n || m.rows > 12*n {
		t.Errorf("%d connects, %d gaps, %d rows: that tested little", connects, m.gaps, m.rows)
	}
}

// TestListAgainOnce: gaps that come before a list begins are told once; one of a group that is
// listed in part, too; and one of a group that is to come in a list of all is not.
func TestListAgainOnce(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	bob := b.Online[1]
	bob.Group = "east"
	b.SetOnline(b.Online[0], bob)
	c := serve(t, b)
	lose := func(group string) {
		b.Lose(inspect.Gap{Cause: inspect.GapFeed, Group: group, ListAgain: true}, inspect.FeedPositions{})
	}
	stream := watching(t, c, &pb.WatchSubscribersRequest{List: true})
	if res := receive(t, stream); res.GetEvent().GetKind() != pb.EventKind_EVENT_KIND_LISTED {
		t.Fatalf("it begins with %v", res)
	}
	checkRest := func(groups ...string) {
		t.Helper()
		var got []string
		for {
			res := receive(t, stream)
			if g := res.GetGap(); g != nil {
				got = append(got, g.GetGroup())
			}
			if res.GetEvent().GetKind() == pb.EventKind_EVENT_KIND_CUT {
				break
			}
		}
		if !slices.Equal(got, groups) {
			t.Errorf("gaps of %v were told, want %v", got, groups)
		}
	}
	b.Publish(inspect.Event{Kind: inspect.EventCut, Subscriber: bob})
	checkRest()
	lose("east")
	lose("east")
	lose("default")
	b.Publish(inspect.Event{Kind: inspect.EventCut, Subscriber: bob})
	checkRest("east", "default")
}

// TestListProgress: a list tells how far it has come, and of how many if they are counted.
func TestListProgress(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	b.Looks = 1
	c := serve(t, b)
	for filter, want := range map[string][]string{"": {"1 of 2", "2 of 2", "2 of 2"}, "bob": {"0 of 0", "1 of 0", "1 of 0"}} {
		stream := watching(t, c, &pb.WatchSubscribersRequest{List: true, UserName: filter})
		var got []string
		for listed := false; !listed; {
			res := receive(t, stream)
			listed = res.GetListed()
			if p := res.GetListProgress(); p != nil {
				if res.GetResumeToken() == "" {
					t.Errorf("no token in %v", res)
				}
				got = append(got, fmt.Sprintf("%d of %d", p.GetListed(), p.GetTotal()))
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", filter, got, want)
		}
	}
}

// TestResumedListCountsOn: the progress of a list that goes on has those that were listed before.
func TestResumedListCountsOn(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	b.Looks = 1
	c := serve(t, b)
	req := &pb.WatchSubscribersRequest{List: true}
	for _, want := range []uint32{1, 2} {
		stream := watching(t, c, req)
		for {
			res := receive(t, stream)
			if p := res.GetListProgress(); p != nil {
				if p.GetListed() != want {
					t.Errorf("%d are listed, want %d", p.GetListed(), want)
				}
				req.ResumeToken = res.GetResumeToken()
				break
			}
		}
	}
}
