package speed

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"layeh.com/radius/rfc2866"

	"github.com/sessiond/sessiond/internal/conntrack"
	"github.com/sessiond/sessiond/internal/conntrack/conntracktest"
	"github.com/sessiond/sessiond/internal/radiusacct/acctclient"
	"github.com/sessiond/sessiond/internal/rig"
)

// Sizes of BenchmarkNASRestart: the subscribers that it ends, and as many subscribers of
// another NAS, with as many sessions.
const (
	restarted       = 2500
	sessionsOfEach  = 100
	restartedNAS    = "bng-a"
	bystandingNAS   = "bng-b"
	startsAtOnce    = 64
	sessionsOfAHalf = restarted * sessionsOfEach
)

// BenchmarkNASRestart measures the time from an Accounting-Off until the last of its
// 250,000 conntrack entries is gone. As many of another NAS's subscribers must all be there
// afterwards.
func BenchmarkNASRestart(b *testing.B) {
	w := start(b)
	makeRoom(b, 2*sessionsOfAHalf)
	ctx := within(b, 5*time.Minute)
	var took time.Duration
	for b.Loop() {
		for _, nas := range []string{restartedNAS, bystandingNAS} {
			if err := w.bringOnline(ctx, nas); err != nil {
				b.Fatal(err)
			}
		}
		w.openSessions(b)
		var err error
		if took, err = w.restart(ctx); err != nil {
			b.Fatal(err)
		}
		w.checkBystanders(ctx, b)
	}
	b.ReportMetric(took.Seconds(), "s")
}

// behind returns the i-th subscriber of a NAS.
func behind(nas string, i int) netip.Addr {
	third := byte(i >> 8)
	if nas == bystandingNAS {
		third += 100
	}
	return netip.AddrFrom4([4]byte{100, 70, third, byte(i)})
}

func (w *world) bringOnline(ctx context.Context, nas string) error {
	client, err := acctclient.Dial(ctx, w.Daemon.RADIUS, "", acctclient.Options{Secret: []byte(rig.Secret)})
	if err != nil {
		return err
	}
	defer client.Close()
	tasks, working := errgroup.WithContext(ctx)
	tasks.SetLimit(startsAtOnce)
	for i := range restarted {
		tasks.Go(func() error {
			return client.Account(working, acctclient.Request{
				Status: rfc2866.AcctStatusType_Value_Start, SessionID: fmt.Sprintf("%s-%d", nas, i),
				UserName: behind(nas, i).String(), FramedAddress: behind(nas, i), NASIdentifier: nas, EventTime: time.Now(),
			})
		})
	}
	if err := tasks.Wait(); err != nil {
		return err
	}
	_, err = w.AwaitState(ctx, behind(nas, restarted-1), "ACTIVE")
	return err
}

// openSessions makes the conntrack entries of both halves.
func (w *world) openSessions(b *testing.B) {
	remote := netip.MustParseAddr("203.0.113.20")
	for _, nas := range []string{restartedNAS, bystandingNAS} {
		for i := range restarted {
			inside := behind(nas, i)
			outside := inside.As4()
			outside[0], outside[1] = 198, 18
			batch := make([]conntrack.Entry, sessionsOfEach)
			for n := range batch {
				port := uint16(2000 + n)
				batch[n] = conntracktest.Outbound(netip.AddrPortFrom(inside, port),
					netip.AddrPortFrom(netip.AddrFrom4(outside), port), netip.AddrPortFrom(remote, 443))
			}
			conntracktest.Inject(b, w.Lab.CGN.Path(), batch)
		}
	}
}

// restart reports the restart, and waits until the kernel has only the entries of the other
// NAS.
func (w *world) restart(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	if err := w.Send(ctx, acctclient.Request{
		Status: rfc2866.AcctStatusType_Value_AccountingOff, NASIdentifier: restartedNAS, EventTime: time.Now(),
	}); err != nil {
		return 0, err
	}
	err := w.Until(ctx, "the sessions to be gone", func() (bool, error) {
		n, err := w.entries(ctx)
		return n <= sessionsOfAHalf, err
	})
	return time.Since(began), err
}

// entries counts all conntrack entries of the CGN.
func (w *world) entries(ctx context.Context) (int, error) {
	out, err := w.Lab.CGN.Output(ctx, "conntrack", "-C")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(out)))
}

// checkBystanders checks that every entry of the other NAS's subscribers exists, and none
// of the restarted one's.
func (w *world) checkBystanders(ctx context.Context, b *testing.B) {
	out, err := w.Lab.CGN.Output(ctx, "conntrack", "-L", "-o", "extended")
	if err != nil {
		b.Fatal(err)
	}
	ended, others := 0, 0
	for line := range strings.Lines(string(out)) {
		_, rest, _ := strings.Cut(line, "src=100.70.")
		third, _, _ := strings.Cut(rest, ".")
		switch n, err := strconv.Atoi(third); {
		case err != nil:
		case n >= 100:
			others++
		default:
			ended++
		}
	}
	if ended != 0 || others != sessionsOfAHalf {
		b.Fatalf("%d entries left, %d of the others' %d", ended, others, sessionsOfAHalf)
	}
}
