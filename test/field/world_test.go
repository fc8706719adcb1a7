package field

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/rig"
	"github.com/sessiond/sessiond/internal/testenv"
)

var programs *rig.Programs

func TestMain(m *testing.M) {
	os.Exit(rig.Main(m, &programs))
}

// Addresses of the clients of every world; bng1 is the rig's own.
const (
	viaBNG1  = "127.0.1.1"
	viaBNG2  = "127.0.2.1"
	viaBrief = "127.0.3.1" // its records expire after 4 seconds
	viaCore1 = "127.0.4.1" // in one realm with the next
	viaCore2 = "127.0.5.1"
	viaEdge1 = "127.0.6.1" // in one client with the next
	viaEdge2 = "127.0.7.1"

	secondClient = "name: bng2, prefix: 127.0.2.0/24, secret: " + rig.Secret
	realmClient1 = "name: core1, realm: core, prefix: 127.0.4.0/24, secret: " + rig.Secret
	realmClient2 = "name: core2, realm: core, prefix: 127.0.5.0/24, secret: " + rig.Secret
	wideClient   = "name: edge, prefixes: [127.0.6.0/24, 127.0.7.0/24], secret: " + rig.Secret
	briefClient  = "name: brief, prefix: 127.0.3.0/24, secret: " + rig.Secret + ", record_ttl: 4s"
)

// within is the timeout of all conditions.
const within = 20 * time.Second

// world is a rig with its test.
type world struct {
	*rig.Rig
	t   *testing.T
	ctx context.Context

	verdicts map[string]int // counted by the running daemon
	inside   netip.Prefix   // addresses of the latest scene
}

func start(t *testing.T) *world {
	t.Helper()
	testenv.Require(t, testenv.Redis)
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	t.Cleanup(cancel)
	r, err := rig.Start(ctx, rig.Options{
		Sessiond: programs.Sessiond, Sessionctl: programs.Sessionctl, Memory: true,
		ListenAlso: []string{"127.0.0.2:0"}, Clients: []string{secondClient, briefClient, realmClient1, realmClient2, wideClient},
		BlockSize: 64, Hold: time.Minute, Guard: "minimum: 100000",
	})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{Rig: r, t: t, ctx: ctx, verdicts: map[string]int{}, inside: netip.MustParsePrefix("100.64.0.0/24")}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("sessiond printed:\n%s", logged(r.Daemon))
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// logged returns the end of the daemon's log, without debug lines and gRPC calls.
func logged(d *rig.Daemon) string {
	var kept strings.Builder
	for line := range strings.Lines(d.Log()) {
		if !strings.Contains(line, `"level":"DEBUG"`) && !strings.Contains(line, `"msg":"grpc call"`) {
			kept.WriteString(line)
		}
	}
	return kept.String()[max(0, kept.Len()-4000):]
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) ctl(args ...string) string {
	w.t.Helper()
	out, err := w.Daemon.Ctl(w.ctx, args...)
	w.must(err)
	return out
}

func (w *world) redis(args ...string) string {
	w.t.Helper()
	out, err := w.Redis.CLI(w.ctx, args...)
	w.must(err)
	return out
}

// restart kills the daemon and starts another on the same Redis. It listens on other ports,
// and has no replies and no records in memory.
func (w *world) restart() {
	w.t.Helper()
	w.must(w.Daemon.Kill())
	w.must(w.Daemon.Start(w.ctx))
	clear(w.verdicts)
}

// newVerdicts returns the verdicts counted since the last call.
func (w *world) newVerdicts() []string {
	w.t.Helper()
	_, body, err := w.Daemon.Get(w.ctx, "/metrics")
	w.must(err)
	now := map[string]int{}
	for line := range strings.Lines(body) {
		rest, ok := strings.CutPrefix(line, "sessiond_accounting_verdicts_total{")
		labels, value, _ := strings.Cut(strings.TrimSpace(rest), "} ")
		_, verdict, named := strings.Cut(labels, `verdict="`)
		count, err := strconv.Atoi(value)
		if ok && named && err == nil {
			now[strings.TrimSuffix(verdict, `"`)] += count
		}
	}
	var grown []string
	for _, verdict := range slices.Sorted(maps.Keys(now)) {
		for range now[verdict] - w.verdicts[verdict] {
			grown = append(grown, verdict)
		}
	}
	w.verdicts = now
	return grown
}

// online returns the online sessions, by inside address, as "USER/ACCT-SESSION-ID".
func (w *world) online(ctx context.Context) (map[netip.Addr]string, error) {
	out, err := w.Daemon.Ctl(ctx, "-o", "json", "subscriber", "list")
	if err != nil {
		return nil, err
	}
	who := map[netip.Addr]string{}
	for line := range strings.Lines(out) {
		var s struct {
			Inside  netip.Addr `json:"inside_address"`
			User    string     `json:"user_name"`
			Session string     `json:"acct_session_id"`
		}
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		who[s.Inside] = s.User + "/" + s.Session
	}
	return who, nil
}

// pass waits until all clocks have advanced by d.
func (w *world) pass(d time.Duration) {
	w.t.Helper()
	end := time.Now().Add(d)
	w.must(w.Until(w.ctx, "time to pass", func() (bool, error) { return !time.Now().Before(end), nil }))
}

// awaitSwept waits until the sessions that NAS restarts end have ended.
func (w *world) awaitSwept(ctx context.Context) error {
	return w.Until(ctx, "restarts to be carried out", func() (bool, error) {
		left, err := w.Redis.CLI(ctx, "SCARD", "sessiond:{default}:restarts")
		return left == "0", err
	})
}

func recordKey(inside netip.Addr) string { return "sessiond:{default}:sub:" + inside.String() }
