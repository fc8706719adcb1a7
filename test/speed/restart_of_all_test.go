package speed

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"layeh.com/radius/rfc2866"

	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/radiusacct/acctclient"
	"github.com/sessiond/sessiond/internal/rig"
	domain "github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
	"github.com/sessiond/sessiond/internal/testenv"
)

// BenchmarkNASRestartOfAll measures the time from an Accounting-Off of all subscribers
// until nothing is left of them, without a removal held by the guard: the whole program,
// Redis with an append-only file, nftables.
func BenchmarkNASRestartOfAll(b *testing.B) {
	for _, n := range []int{100_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var took time.Duration
			for b.Loop() {
				took = restartOfAll(b, n)
			}
			b.ReportMetric(took.Seconds(), "s")
			b.ReportMetric(float64(took.Microseconds())/float64(n), "us/subscriber")
		})
	}
}

func restartOfAll(b *testing.B, n int) time.Duration {
	testenv.Require(b, testenv.Root|testenv.Redis|testenv.Nft|testenv.Conntrack)
	ctx := within(b, 20*time.Minute)
	pool := netip.MustParsePrefix("198.18.0.0/21")
	r, err := rig.Start(ctx, rig.Options{
		Sessiond: programs.Sessiond, Sessionctl: programs.Sessionctl, BlockSize: 64, Hold: time.Hour, LogLevel: "info",
		RedisArgs: []string{"--appendonly", "yes"}, Lab: netlab.Options{Pool: []netip.Prefix{pool}},
	})
	if err != nil {
		b.Fatal(err)
	}
	w := &world{Rig: r}
	defer func() {
		if err := r.Close(); err != nil {
			b.Error(err)
		}
	}()
	if err := w.multitude(ctx, n); err != nil {
		b.Fatal(err)
	}
	began := time.Now()
	if err := w.Send(ctx, acctclient.Request{
		Status: rfc2866.AcctStatusType_Value_AccountingOff, NASIdentifier: restartedNAS, EventTime: time.Now(),
	}); err != nil {
		b.Fatal(err)
	}
	if err := w.awaitCount(ctx, `sessiond_removals_total{group="default",reason="nas_restart"}`, n); err != nil {
		b.Fatal(err)
	}
	took := time.Since(began)
	for series, want := range map[string]string{
		`sessiond_removals_total{group="default",reason="removed_in_database"}`: "0",
		`sessiond_removals_held{group="default",reason="removed_in_database"}`:  "0",
		`sessiond_subscribers{group="default"}`:                                 "0",
		`sessiond_bindings{group="default",state="active"}`:                     "0",
		`sessiond_bindings{group="default",state="cut"}`:                        "0",
	} {
		if got, err := w.Daemon.Metric(ctx, series); got != want || err != nil {
			b.Errorf("%s is %s, want %s; %v", series, got, want, err)
		}
	}
	return took
}

// multitude brings n subscribers of one NAS online, by the database: other benchmarks
// measure the cost of Starts.
func (w *world) multitude(ctx context.Context, n int) error {
	client, err := redisconn.Dial([]string{"unix://" + w.Redis.Socket}, redisconn.ModeStandalone, 0)
	if err != nil {
		return err
	}
	defer client.Close()
	db, err := subscriberdb.New(subscriberdb.Options{Client: client, Node: "load", Groups: []subscriberdb.Group{{
		Name: "default", Inside: []netip.Prefix{netip.MustParsePrefix("100.64.0.0/10")}, RecordTTL: 45 * time.Minute,
	}}})
	if err != nil {
		return err
	}
	at := time.Now().Add(-time.Minute)
	const most = 2048
	for first := 0; first < n; first += most {
		events := make([]domain.Event, min(most, n-first))
		for i := range events {
			var inside [4]byte
			binary.BigEndian.PutUint32(inside[:], 100<<24|64<<16+uint32(first+i)+1)
			events[i] = domain.Event{
				Kind: domain.EventStart, Inside: netip.AddrFrom4(inside), At: at, SessionTime: -1,
				UserName: fmt.Sprintf("user-%d@example.net", first+i), CallingStationID: "02:00:00:00:00:01",
				SessionID: domain.SessionID{Client: "bng1", NAS: restartedNAS, AcctSessionID: fmt.Sprintf("%016x", first+i)},
			}
		}
		for _, err := range db.Record(ctx, events) {
			if err != nil {
				return err
			}
		}
	}
	return w.awaitCount(ctx, `sessiond_bindings{group="default",state="active"}`, n)
}

// lookEvery is awaitCount's interval: printing all metrics costs the program some
// milliseconds, which would be measured too.
const lookEvery = 100 * time.Millisecond

// awaitCount waits until a metric has reached a value. The gauge counts a binding shortly
// before its gate opens; the restart that follows comes after that.
func (w *world) awaitCount(ctx context.Context, series string, n int) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		text, err := w.Daemon.Metric(ctx, series)
		if err != nil {
			return err
		}
		var got float64
		if _, err := fmt.Sscan(text, &got); err != nil {
			return err
		}
		if int(got) >= n {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is %s, want %d", series, text, n)
		case <-tick.C:
		}
	}
}
