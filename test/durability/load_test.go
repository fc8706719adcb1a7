package durability

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/radiusacct/acctclient"
	"github.com/sessiond/sessiond/internal/rig"
)

const (
	bngs          = 4
	workers       = 8  // of a BNG, each with one request at a time
	perWorker     = 16 // subscribers
	allOfThem     = bngs * workers * perWorker
	firstInside   = "100.64.0.1"
	givesUpAfter  = 2   // transmissions of an impatient BNG
	outlastsKills = 500 // of a patient one
	retransmit    = 20 * time.Millisecond
)

// load is BNGs with their subscribers. Two of the BNGs retransmit until a new sessiond
// answers the requests that the killed one left unanswered; the others soon give up.
type load struct {
	subscribers []*subscriber
	clients     []*acctclient.Client
	acked       atomic.Int64
	givenUp     atomic.Int64
	running     sync.WaitGroup

	mu      sync.Mutex
	cleared chan struct{} // closed, and replaced, when doubts were resolved
}

func newLoad(ctx context.Context, t *testing.T, server string) *load {
	t.Helper()
	l := &load{cleared: make(chan struct{})}
	inside := netip.MustParseAddr(firstInside)
	for range allOfThem {
		l.subscribers = append(l.subscribers, &subscriber{inside: inside})
		inside = inside.Next()
	}
	for i := range bngs {
		options := acctclient.Options{Secret: []byte(rig.Secret), Timeout: retransmit, Transmissions: givesUpAfter}
		if i%2 == 0 {
			options.Transmissions = outlastsKills
		}
		c, err := acctclient.Dial(ctx, server, "", options)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		l.clients = append(l.clients, c)
	}
	return l
}

// run has the BNGs report until ctx ends; requests in progress are then settled.
func (l *load) run(ctx context.Context) {
	for i := range bngs * workers {
		random := rand.New(rand.NewPCG(uint64(i), 21))
		own := l.subscribers[i*perWorker : (i+1)*perWorker]
		l.running.Go(func() { l.work(ctx, i/workers, own, random) })
	}
}

func (l *load) work(ctx context.Context, bng int, own []*subscriber, random *rand.Rand) {
	nas := fmt.Sprint("bng-", bng)
	for ctx.Err() == nil {
		cleared := l.whenCleared()
		s, request, ok := pick(own, random, nas)
		if !ok {
			select {
			case <-ctx.Done():
			case <-cleared:
			}
			continue
		}
		// An event that has begun is settled, so that it has one outcome.
		err := l.clients[bng].Account(context.WithoutCancel(ctx), request)
		s.settle(err == nil)
		if err == nil {
			l.acked.Add(1)
		} else {
			l.givenUp.Add(1)
		}
	}
}

// pick begins an event of a subscriber without doubt, if there is one.
func pick(own []*subscriber, random *rand.Rand, nas string) (*subscriber, acctclient.Request, bool) {
	for _, i := range random.Perm(len(own)) {
		if request, ok := own[i].next(random.IntN(10), nas); ok {
			return own[i], request, true
		}
	}
	return nil, acctclient.Request{}, false
}

// whenCleared returns a channel that is closed once doubts are resolved.
func (l *load) whenCleared() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cleared
}

func (l *load) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.cleared)
	l.cleared = make(chan struct{})
}

// compare compares all subscribers with their sessions in Redis.
func (l *load) compare(t *testing.T, records []string) {
	t.Helper()
	for i, s := range l.subscribers {
		if err := s.compare(records[i]); err != nil {
			t.Error(err)
		}
	}
	l.clear()
}

// onlineNow returns the known online sessions by inside address.
func (l *load) onlineNow() map[string]string {
	sessions := map[string]string{}
	for _, s := range l.subscribers {
		if s.online != "" {
			sessions[s.inside.String()] = s.online
		}
	}
	return sessions
}
