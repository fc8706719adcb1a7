package system

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"layeh.com/radius/rfc2866"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/radiusacct/acctclient"
	"github.com/sessiond/sessiond/internal/rig"
)

// TestStalledWatchersCostLittle_I10: a program that opens 1,000 watches and reads none of
// them gets an error that these are too many. Those that it has cost the daemon some tens
// of MB while accounting goes on, and are then ended.
func TestStalledWatchersCostLittle_I10(t *testing.T) {
	const (
		watches     = 1000
		subscribers = 4000
		allowed     = 128 << 20 // octets that the daemon may grow by, the subscribers included
	)
	w := start(t, rig.Options{Memory: true, BlockSize: 64})
	w.must(w.Daemon.Edit(func(config string) string {
		return strings.Replace(config, "grpc: {", "grpc: {stall_timeout: 3s, ", 1)
	}))
	_, err := w.Daemon.Stop()
	w.must(err)
	w.must(w.Daemon.Start(w.ctx))
	before := w.peakMemory()

	ctx, end := context.WithCancel(w.ctx)
	defer end()
	served, refused := 0, 0
	for range watches / 50 {
		conn, err := w.Daemon.Dial()
		w.must(err)
		t.Cleanup(func() { _ = conn.Close() })
		for range 50 {
			switch err := openWatch(ctx, conn); {
			case err == nil:
				served++
			case status.Code(err) == codes.ResourceExhausted && strings.Contains(err.Error(), "grpc.max_streams_per_peer"):
				refused++
			default:
				t.Fatalf("a watch was refused with %v", err)
			}
		}
	}
	if served != 32 || refused != watches-32 {
		t.Errorf("%d watches are served and %d refused, of %d", served, refused, watches)
	}

	took := w.accountFor(subscribers)
	if p50 := took[len(took)/2]; p50 > 100*time.Millisecond {
		t.Errorf("accounting took %v at the median", p50)
	}
	if grown := w.peakMemory() - before; grown > allowed {
		t.Errorf("the daemon grew by %d MB", grown>>20)
	}
	w.soon(20*time.Second, func(ctx context.Context) error {
		return w.Until(ctx, "the watches to be ended", func() (bool, error) {
			// For being behind too long, by too much, or with the connection: whichever
			// comes first.
			_, body, err := w.Daemon.Get(ctx, "/metrics")
			ended := 0
			for line := range strings.Lines(body) {
				if rest, ok := strings.CutPrefix(line, `sessiond_grpc_streams_ended_total{method="WatchSubscribers",`); ok {
					_, value, _ := strings.Cut(strings.TrimSpace(rest), "} ")
					n, err := strconv.Atoi(value)
					if err != nil {
						return false, err
					}
					ended += n
				}
			}
			return ended == served, err
		})
	})
	w.soon(20*time.Second, func(ctx context.Context) error {
		return w.Until(ctx, "a new watch to be served", func() (bool, error) {
			conn, err := w.Daemon.Dial()
			if err != nil {
				return false, err
			}
			defer conn.Close()
			return openWatch(ctx, conn) == nil, nil
		})
	})
}

// TestWatchOverKills: sessionctl watch goes on over a daemon that is killed right after its
// answers, five times: each start and each end of a session is told once.
func TestWatchOverKills(t *testing.T) {
	const rounds, each = 5, 40
	w := start(t, rig.Options{Memory: true, BlockSize: 64, Hold: time.Minute}) // an end keeps its name as long
	ctx, interrupt := context.WithCancel(w.ctx)
	defer interrupt()
	var out lockedText
	ended := make(chan error, 1)
	go func() { ended <- w.Daemon.CtlTo(ctx, &out, "watch", "--list", "-o", "json") }()
	w.awaitText(&out, `"listed":true`, 1)
	bng, err := acctclient.Dial(w.ctx, w.Daemon.RADIUS, "127.0.0.1:0", acctclient.Options{Secret: []byte(rig.Secret)})
	w.must(err)
	defer func() { _ = bng.Close() }()
	account := func(kind rfc2866.AcctStatusType, round int) {
		for i := range each {
			n := round*each + i
			w.must(bng.Account(w.ctx, acctclient.Request{
				Status: kind, SessionID: fmt.Sprint("s-", n), UserName: fmt.Sprint("user-", n),
				FramedAddress: netip.AddrFrom4([4]byte{100, 64, byte(n >> 8), byte(n)}), NASIdentifier: rig.NAS, EventTime: time.Now(),
			}))
		}
	}
	again := func() {
		w.must(w.Daemon.Kill())
		w.must(w.Daemon.Start(w.ctx))
		w.must(bng.Close())
		bng, err = acctclient.Dial(w.ctx, w.Daemon.RADIUS, "127.0.0.1:0", acctclient.Options{Secret: []byte(rig.Secret)})
		w.must(err)
	}
	for round := range rounds {
		account(rfc2866.AcctStatusType_Value_Start, round)
		again()
		account(rfc2866.AcctStatusType_Value_Stop, round)
		if round%2 == 0 {
			again()
		}
	}
	w.awaitText(&out, `"kind":"EVENT_KIND_DELETED"`, rounds*each)
	interrupt()
	<-ended
	text := out.String()
	for kind, times := range map[string]int{"CREATED": rounds * each, "DELETED": rounds * each, "LISTED": 0} {
		if got := strings.Count(text, `"kind":"EVENT_KIND_`+kind+`"`); got != times {
			t.Errorf("%d events %s, want %d", got, kind, times)
		}
	}
	if gaps := strings.Count(text, `"list_again":false`); gaps == 0 || strings.Contains(text, `"list_again":true`) {
		t.Errorf("%d gaps of other events; records may be missing: %v", gaps, strings.Contains(text, `"list_again":true`))
	}
	for n := range rounds * each {
		for _, kind := range []string{"CREATED", "DELETED"} {
			told := 0
			for line := range strings.Lines(text) {
				if strings.Contains(line, "EVENT_KIND_"+kind) && strings.Contains(line, fmt.Sprintf(`"inside_address":"100.64.%d.%d"`, n>>8, n&255)) {
					if name := fmt.Sprintf(`"user_name":"user-%d"`, n); !strings.Contains(line, name) {
						t.Errorf("user-%d: told without the name: %s", n, line)
					}
					told++
				}
			}
			if told != 1 {
				t.Errorf("user-%d: told %d times that it is %s", n, told, kind)
			}
		}
	}
}

// lockedText takes the output of a command that still runs.
type lockedText struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// awaitText waits until a text is there so often.
func (w *world) awaitText(l *lockedText, text string, times int) {
	w.t.Helper()
	w.soon(20*time.Second, func(ctx context.Context) error {
		return w.Until(ctx, fmt.Sprintf("%d times %s", times, text), func() (bool, error) {
			return strings.Count(l.String(), text) >= times, nil
		})
	})
}

// openWatch opens a watch and reads only that it is served.
func openWatch(ctx context.Context, conn *grpc.ClientConn) error {
	stream, err := pb.NewSubscriberServiceClient(conn).WatchSubscribers(ctx, &pb.WatchSubscribersRequest{})
	if err != nil {
		return err
	}
	if md, err := stream.Header(); err != nil || md != nil {
		return err
	}
	_, err = stream.Recv()
	if err == nil {
		err = errors.New("an event before the header")
	}
	return err
}

// accountFor brings subscribers online and offline, sixteen at a time, and returns the
// sorted times of the requests.
func (w *world) accountFor(subscribers int) []time.Duration {
	w.t.Helper()
	const lanes = 16
	took := make([][]time.Duration, lanes)
	var group errgroup.Group
	for lane := range lanes {
		group.Go(func() error {
			bng, err := acctclient.Dial(w.ctx, w.Daemon.RADIUS, "127.0.0.1:0", acctclient.Options{Secret: []byte(rig.Secret)})
			if err != nil {
				return err
			}
			defer bng.Close()
			for i := lane; i < subscribers; i += lanes {
				inside := netip.AddrFrom4([4]byte{100, 64 + byte(i>>16), byte(i >> 8), byte(i)})
				for _, kind := range []rfc2866.AcctStatusType{rfc2866.AcctStatusType_Value_Start, rfc2866.AcctStatusType_Value_Stop} {
					began := time.Now()
					err := bng.Account(w.ctx, acctclient.Request{
						Status: kind, SessionID: fmt.Sprint("s-", i), UserName: fmt.Sprint("user-", i), FramedAddress: inside,
						NASIdentifier: rig.NAS, EventTime: time.Now(),
					})
					if err != nil {
						return fmt.Errorf("%v of %v: %w", kind, inside, err)
					}
					took[lane] = append(took[lane], time.Since(began))
				}
			}
			return nil
		})
	}
	w.must(group.Wait())
	all := slices.Concat(took...)
	slices.Sort(all)
	return all
}

// peakMemory returns the daemon's peak resident memory, in octets.
func (w *world) peakMemory() int {
	w.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.Daemon.PID()))
	w.must(err)
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
			w.must(err)
			return kb << 10
		}
	}
	w.t.Fatal("no VmHWM")
	return 0
}
