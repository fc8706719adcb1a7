//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/labapi"
)

// A flow is a long-lived TCP flow between two containers.
type flow struct {
	subscriber, internet     host
	atSubscriber, atInternet int // its number at each
	source                   netip.AddrPort
}

// openFlow opens a flow of a subscriber through the CGN.
func (s *stack) openFlow(t *testing.T, inside netip.Addr) *flow {
	t.Helper()
	before := s.countFlows(t)
	opened, err := s.subscriber.Open(testContext(t), labapi.Probe{
		From: netip.AddrPortFrom(inside, 0), To: s.flows, Milliseconds: 5000,
	})
	if err != nil {
		t.Fatalf("open flow of %v: %v", inside, err)
	}
	f := &flow{subscriber: s.subscriber, internet: s.internet, atSubscriber: opened.ID}
	eventually(t, 5*time.Second, func() error {
		all, err := s.internet.Flows(testContext(t))
		if err != nil {
			return err
		}
		if len(all) <= before {
			return fmt.Errorf("flow of %v did not arrive", inside)
		}
		f.atInternet, f.source = all[before].ID, all[before].Remote
		return nil
	})
	return f
}

// probe sends a number each way at once and reports which arrived in time.
func (f *flow) probe(within time.Duration) (out, in bool) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	var both sync.WaitGroup
	both.Go(func() { out = passes(ctx, f.subscriber, f.atSubscriber, f.internet, f.atInternet) })
	both.Go(func() { in = passes(ctx, f.internet, f.atInternet, f.subscriber, f.atSubscriber) })
	both.Wait()
	return out, in
}

func passes(ctx context.Context, from host, fromID int, to host, toID int) bool {
	n, err := from.Send(ctx, fromID)
	if err != nil {
		return false
	}
	for {
		all, err := to.Flows(ctx)
		if err != nil {
			return false
		}
		if all[toID-1].Received >= n {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// checkAlive fails the test unless the flow passes in both directions.
func (f *flow) checkAlive(t *testing.T, whose string) {
	t.Helper()
	if out, in := f.probe(5 * time.Second); !out || !in {
		t.Errorf("flow of %s passes out %v, in %v; want both", whose, out, in)
	}
}

// checkDead fails the test if the flow passes in any direction, for long enough that TCP
// retransmits.
func (f *flow) checkDead(t *testing.T, whose string) {
	t.Helper()
	if out, in := f.probe(1500 * time.Millisecond); out || in {
		t.Errorf("flow of %s passes out %v, in %v; want neither", whose, out, in)
	}
}

// end resets the flow from the subscriber's side.
func (f *flow) end(t *testing.T) {
	t.Helper()
	if err := f.subscriber.End(testContext(t), f.atSubscriber); err != nil {
		t.Error(err)
	}
}
