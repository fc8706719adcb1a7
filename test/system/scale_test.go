package system

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"layeh.com/radius/rfc2866"

	"github.com/sessiond/sessiond/internal/acctload"
	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/rig"
)

// subscribersVariable sets the number of subscribers of the restarted NAS, where the usual
// number is too small.
const (
	subscribersVariable = "SESSIOND_SUBSCRIBERS"
	usualSubscribers    = 20_000
)

func numberOfSubscribers(t *testing.T) int {
	t.Helper()
	text := os.Getenv(subscribersVariable)
	if text == "" {
		return usualSubscribers
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1000 {
		t.Fatalf("%s=%q: write a whole number of at least 1000", subscribersVariable, text)
	}
	return n
}

// TestManyRestarted_SES17: the Accounting-Off of a NAS with very many sessions is answered
// within a second. They end after it, and sessions that begin meanwhile, behind the same
// NAS and on some of the same addresses, are not harmed.
func TestManyRestarted_SES17(t *testing.T) {
	w := start(t, rig.Options{Memory: true, BlockSize: 64, Hold: time.Second,
		Lab: netlab.Options{Pool: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}}})
	inside := netip.MustParsePrefix("100.80.0.0/12")
	subscribers := numberOfSubscribers(t)
	_, err := acctload.Run(w.ctx, w.load(acctload.Interim, inside, subscribers, func(o *acctload.Options) {
		o.Concurrency, o.Duration = 256, time.Millisecond
	}))
	w.must(err)
	w.countsOnline(subscribers)

	began := time.Now()
	w.must(w.Send(w.ctx, accountingOff(rig.NAS)))
	took := time.Since(began)
	if took > time.Second {
		t.Errorf("Accounting-Off answered after %v", took)
	}
	const since = 50
	for i := range since {
		s := sessionOf(inside.Addr(), fmt.Sprint("new-", i))
		for range i * 100 {
			s.Inside = s.Inside.Next()
		}
		w.must(w.Report(w.ctx, rfc2866.AcctStatusType_Value_Start, s))
	}
	w.countsOnline(since)
	w.soon(20*time.Second, func(ctx context.Context) error {
		return w.Until(ctx, "the new sessions to have blocks, and nobody else", func() (bool, error) {
			active, err := w.Daemon.Metric(ctx, `sessiond_bindings{group="default",state="active"}`)
			return active == strconv.Itoa(since), err
		})
	})
	t.Logf("%d subscribers, Accounting-Off answered after %v, all gone after %v", subscribers, took, time.Since(began))
}

// load runs a load scenario from the rig's BNG.
func (w *world) load(scenario acctload.Scenario, inside netip.Prefix, subscribers int, change func(*acctload.Options)) acctload.Options {
	o := acctload.Options{
		Server: netip.MustParseAddrPort(w.Daemon.RADIUS), Secret: []byte(rig.Secret), NAS: rig.NAS,
		Scenario: scenario, Inside: inside, Subscribers: subscribers, Transmissions: 10,
	}
	change(&o)
	return o
}

// countsOnline waits until the given number is online in Redis.
func (w *world) countsOnline(want int) {
	w.t.Helper()
	w.soon(60*time.Second, func(ctx context.Context) error {
		return w.Until(ctx, fmt.Sprint(want, " subscribers to be online"), func() (bool, error) {
			n, err := w.Redis.CLI(ctx, "HLEN", "sessiond:{default}:online")
			return n == strconv.Itoa(want), err
		})
	})
}

// TestTranslatedSoon_SES24: under 1000 Starts a second a subscriber that sends all the time
// is translated within a second of the answer to its Start, 99 times of 100. Its packets
// before were dropped; it sends again after 200 ms, which is included in the time.
func TestTranslatedSoon_SES24(t *testing.T) {
	const samples, atOnce = 100, 8
	var inside []netip.Addr
	for a := netip.MustParseAddr("100.64.2.1"); len(inside) < samples; a = a.Next() {
		inside = append(inside, a)
	}
	w := start(t, rig.Options{Lab: netlab.Options{
		Subscribers: inside, Pool: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")},
	}})
	capture, err := w.Lab.CGN.Capture(netlab.OutsideInterface)
	w.must(err)
	w.Lab.Own(capture)
	echo, err := w.Lab.StartEcho(netip.AddrPortFrom(w.Lab.Remotes[0], 0))
	w.must(err)
	stop := w.startsEverySecond(1000)
	took := make([]time.Duration, samples)
	var asking sync.WaitGroup
	for first := range atOnce {
		asking.Go(func() {
			for i := first; i < samples; i += atOnce {
				took[i] = w.untilTranslated(inside[i], echo.Addr())
			}
		})
	}
	asking.Wait()
	answered := stop()
	slices.Sort(took)
	if p99 := took[samples*99/100-1]; p99 > time.Second {
		t.Errorf("99 %% within %v, want 1 s: %v", p99, took)
	}
	w.must(capture.Settle(w.ctx, w.Lab.CGN, w.Lab.Remotes[0]))
	leaked := capture.Matching(func(p netlab.Packet) bool { return slices.ContainsFunc(inside, p.Mentions) })
	if len(leaked) > 0 {
		t.Errorf("%d packets left untranslated, first: %+v", len(leaked), leaked[0])
	}
	t.Logf("median %v, 99 %% %v, at %.0f Starts/s", took[samples/2], took[samples*99/100-1], answered)
}

// startsEverySecond sends Starts at a rate until stop is called, which returns the rate of
// answers.
func (w *world) startsEverySecond(rate float64) (stop func() float64) {
	inside := netip.MustParsePrefix("100.96.0.0/11")
	done := make(chan struct{})
	var replies uint64
	began := time.Now()
	var loading sync.WaitGroup
	loading.Go(func() {
		for ended := false; !ended; {
			result, err := acctload.Run(w.ctx, w.load(acctload.Start, inside, 20_000, func(o *acctload.Options) {
				o.Rate, o.Duration = rate, time.Second
			}))
			if err != nil {
				w.t.Error(err)
				return
			}
			replies += result.Replies
			select {
			case <-done:
				ended = true
			default:
			}
		}
	})
	return func() float64 {
		close(done)
		loading.Wait()
		return float64(replies) / time.Since(began).Seconds()
	}
}

// untilTranslated has a subscriber send before its Start, and returns the time from the
// answer to the Start until the answer to one of its packets.
func (w *world) untilTranslated(inside netip.Addr, echo netip.AddrPort) time.Duration {
	type answer struct {
		at  time.Time
		err error
	}
	answers := make(chan answer, 1)
	go func() {
		ctx, cancel := context.WithTimeout(w.ctx, 30*time.Second)
		defer cancel()
		_, err := w.Lab.Subscriber.AskUDP(ctx, netip.AddrPortFrom(inside, 33333), echo)
		answers <- answer{time.Now(), err}
	}()
	err := w.Report(w.ctx, rfc2866.AcctStatusType_Value_Start, sessionOf(inside, "s-"+inside.String()))
	acked := time.Now()
	a := <-answers
	if err := errors.Join(err, a.err); err != nil {
		w.t.Errorf("%v: %v", inside, err)
	}
	return a.at.Sub(acked)
}
