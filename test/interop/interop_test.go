// Package interop tests sessiond with software of other projects: RADIUS clients, proxies, a
// relay, an access server and the analysers that check the replies; and behind the NAT and
// beyond it iperf3, hping3, Scapy, vsftpd with curl, Kamailio with sipp, and coturn. Every
// assertion is made from outside.
package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"text/template"
	"time"

	"github.com/sessiond/sessiond/internal/rig"
	"github.com/sessiond/sessiond/internal/testenv"
)

var programs *rig.Programs

func TestMain(m *testing.M) {
	os.Exit(rig.Main(m, &programs))
}

var (
	alice = netip.MustParseAddr("100.64.0.10")
	bob   = netip.MustParseAddr("100.64.0.11")
	carol = netip.MustParseAddr("100.64.0.12")
)

// world is a sessiond without kernel NAT, on a loopback address of the test's own, with the
// programs that the test runs in front of it.
type world struct {
	*rig.Rig
	t      *testing.T
	ctx    context.Context
	host   netip.Addr     // every program of the test listens on and sends from it
	server netip.AddrPort // sessiond's RADIUS address, across restarts too
}

func start(t *testing.T, needs testenv.Need) *world {
	t.Helper()
	return startWith(t, needs, func(*world, *rig.Options) {})
}

// startWith lets the test change sessiond's options, when its host is known.
func startWith(t *testing.T, needs testenv.Need, change func(*world, *rig.Options)) *world {
	t.Helper()
	testenv.Require(t, testenv.Redis|needs)
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	w := &world{t: t, ctx: ctx, host: ownHost()}
	w.server = w.freePort()
	options := rig.Options{
		Sessiond: programs.Sessiond, Sessionctl: programs.Sessionctl,
		Memory: true, Listen: w.server.String(),
	}
	change(w, &options)
	r, err := rig.Start(ctx, options)
	if err != nil {
		t.Fatal(err)
	}
	w.Rig = r
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("sessiond printed:\n%s", tail(r.Daemon.Log()))
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// tail returns the end of a log, at most as much as a failed test should print.
func tail(s string) string { return s[max(0, len(s)-8000):] }

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// soon waits until the condition holds, for twenty seconds at most: ocserv is slow to report.
func (w *world) soon(what string, holds func() bool) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, 20*time.Second)
	defer cancel()
	w.must(w.Until(ctx, what, func() (bool, error) { return holds(), nil }))
}

// record reads the subscriber record of an inside address with redis-cli; it is empty if
// there is none.
func (w *world) record(inside netip.Addr) map[string]string {
	w.t.Helper()
	out, err := w.Redis.CLI(w.ctx, "--json", "HGETALL", "sessiond:{default}:sub:"+inside.String())
	w.must(err)
	record := map[string]string{}
	w.must(json.Unmarshal([]byte(out), &record))
	return record
}

// records returns the number of online subscribers.
func (w *world) records() int {
	w.t.Helper()
	out, err := w.Redis.CLI(w.ctx, "--raw", "EVAL", `return #redis.call("KEYS", "sessiond:{default}:sub:*")`, "0")
	w.must(err)
	n, err := strconv.Atoi(out)
	w.must(err)
	return n
}

// wants checks fields of the record.
func (w *world) wants(inside netip.Addr, fields map[string]string) {
	w.t.Helper()
	record := w.record(inside)
	for name, want := range fields {
		if record[name] != want {
			w.t.Errorf("record of %v: %s is %q, want %q", inside, name, record[name], want)
		}
	}
}

// offline checks that the subscriber has no record.
func (w *world) offline(inside netip.Addr) {
	w.t.Helper()
	if record := w.record(inside); len(record) > 0 {
		w.t.Errorf("%v is online still: %v", inside, record)
	}
}

// began checks the time at which the session began, within the two seconds that ACCT-16
// allows.
func (w *world) began(inside netip.Addr, want time.Time) {
	w.t.Helper()
	record := w.record(inside)
	at, err := time.Parse(time.RFC3339Nano, record["started_at"])
	if err != nil {
		w.t.Errorf("record of %v: %v: %v", inside, record, err)
		return
	}
	if off := at.Sub(want).Round(time.Millisecond); off.Abs() > 2*time.Second {
		w.t.Errorf("the session of %v began at %v, which is %v off", inside, at, off)
	}
}

// block waits until the subscriber has its port block.
func (w *world) block(inside netip.Addr) rig.Binding {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, 10*time.Second)
	defer cancel()
	b, err := w.AwaitState(ctx, inside, "ACTIVE")
	w.must(err)
	return b
}

// counted returns the number of requests that sessiond has counted with these labels.
func (w *world) counted(kind, result string) int {
	w.t.Helper()
	series := fmt.Sprintf(`sessiond_radius_requests_total{client="bng1",result=%q,type=%q}`, result, kind)
	value, err := w.Daemon.Metric(w.ctx, series)
	if err != nil {
		return 0 // a counter exists once it has counted
	}
	n, err := strconv.Atoi(value)
	w.must(err)
	return n
}

// output runs a program to its end, whatever its exit status, and returns its output.
func (w *world) output(cmd *exec.Cmd) string {
	w.t.Helper()
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		w.t.Fatalf("%s: %v", cmd.Path, err)
	}
	return string(out)
}

// program starts a program that runs beside sessiond until the test ends, and
// waits until it prints that it is ready.
func (w *world) program(ready, name string, args ...string) *rig.Program {
	w.t.Helper()
	p, err := rig.Run(exec.Command(name, args...))
	w.must(err)
	w.t.Cleanup(func() {
		if w.t.Failed() {
			w.t.Logf("%s printed:\n%s", name, tail(p.Log()))
		}
		if err := p.Kill(); err != nil {
			w.t.Error(err)
		}
	})
	w.await(p, ready)
	return p
}

// await waits for a line of a program's output.
func (w *world) await(p *rig.Program, text string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, 40*time.Second)
	defer cancel()
	w.must(p.AwaitLine(ctx, text))
}

// generate writes the configuration of a program from a template.
func (w *world) generate(from, to string, values any) {
	w.t.Helper()
	conf, err := template.ParseFiles(from)
	w.must(err)
	var text bytes.Buffer
	w.must(conf.Execute(&text, values))
	w.must(os.WriteFile(to, text.Bytes(), 0o600))
}
