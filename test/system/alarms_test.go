package system

import (
	"errors"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/sessiond/sessiond/internal/rig"
)

// shows waits until a series has the value.
func (w *world) shows(series, want string) {
	w.t.Helper()
	var got string
	err := w.Until(w.ctx, series+" to be "+want, func() (bool, error) {
		var err error
		got, err = w.Daemon.Metric(w.ctx, series)
		return got == want, err
	})
	if err != nil {
		w.t.Fatalf("%v; it is %s", err, got)
	}
}

// TestReloadTellsTheTruth: a reload names the keys that need a restart, and sets the
// counters of new clients and groups to 0. A refused reload changes nothing. Metrics show
// the result of both.
func TestReloadTellsTheTruth(t *testing.T) {
	const (
		taken = "sessiond_config_last_reload_successful"
		when  = "sessiond_config_last_reload_timestamp_seconds"
	)
	w := start(t, rig.Options{Memory: true})
	w.shows(taken, "1")
	w.shows(`sessiond_radius_requests_total{client="bng1",result="store_failed",type="stop"}`, "0")
	w.shows(`sessiond_accounting_verdicts_total{group="default",verdict="took_over"}`, "0")
	w.shows(`sessiond_removals_total{group="default",reason="removed_in_database"}`, "0")
	w.shows(`sessiond_drift_total{kind="binding_unsaved"}`, "0")
	started := w.number(when)

	good, err := w.Daemon.Reload(w.ctx, func(config string) string {
		return strings.NewReplacer(
			"backend: memory", "backend: memory, table: elsewhere",
			`http: {listen: "127.0.0.1:0"}`, `http: {listen: "127.0.0.2:0"}`,
			"udp: 5m0s", "udp: 4m0s",
			"  clients:\n", "  clients:\n    - {name: bng2, prefix: 192.0.2.0/24, secret: other}\n",
		).Replace(config) + "  - {name: east, inside: [100.60.0.0/24], outside: [192.0.2.0/28]}\n"
	})
	w.must(err)
	if !good {
		t.Fatal("a good configuration was refused")
	}
	w.shows(taken, "1")
	w.shows(`sessiond_radius_requests_total{client="bng2",result="bad_authenticator",type="unread"}`, "0")
	w.shows(`sessiond_accounting_verdicts_total{group="east",verdict="stale"}`, "0")
	w.shows(`sessiond_feed_lag_seconds{group="east"}`, "0")
	w.shows(`sessiond_feed_gaps_total{group="east"}`, "0")
	w.must(w.Until(w.ctx, "the keys to be named", func() (bool, error) {
		log := w.Daemon.Log()
		return strings.Contains(log, `"keys":["http.listen","nat.table"]`) &&
			strings.Contains(log, `"keys":["settings.idle_timeouts.udp"]`), nil
	}))
	if n := w.number(when); n <= started {
		t.Errorf("reloaded at %f, started at %f", n, started)
	}

	for what, change := range map[string]func(string) string{
		"not valid": func(config string) string { return strings.Replace(config, "secret: other", "secret: ''", 1) },
		"not possible": func(config string) string { // alice's address goes to another group
			return strings.Replace(strings.Replace(config, "100.64.0.0/10", "100.65.0.0/16", 1), "100.60.0.0/24", "100.64.0.0/24", 1)
		},
	} {
		if what == "not possible" {
			w.online(sessionOf(alice, "a-1"))
		}
		var before string
		good, err := w.Daemon.Reload(w.ctx, func(config string) string { before = config; return change(config) })
		w.must(err)
		if good {
			t.Errorf("a configuration that is %s was taken", what)
		}
		w.shows(taken, "0")
		w.online(sessionOf(bob, "b-"+what[4:5])) // the old clients and groups still apply
		good, err = w.Daemon.Reload(w.ctx, func(string) string { return before })
		w.must(err)
		if !good {
			t.Error("the configuration of before is refused")
		}
		w.shows(taken, "1")
	}
}

func (w *world) number(series string) float64 {
	w.t.Helper()
	text, err := w.Daemon.Metric(w.ctx, series)
	w.must(err)
	n, err := strconv.ParseFloat(text, 64)
	w.must(err)
	return n
}

// TestReadinessIsOneTruth: /readyz, the metric and the exit code of sessionctl status
// agree.
func TestReadinessIsOneTruth(t *testing.T) {
	w := start(t, rig.Options{Memory: true})
	w.agree(true)
	w.must(w.Redis.Kill())
	w.agree(false)
	w.must(w.Redis.Start(w.ctx))
	w.agree(true)
}

func (w *world) agree(ready bool) {
	w.t.Helper()
	var code, page int
	var metric, printed string
	err := w.Until(w.ctx, "all to agree", func() (bool, error) {
		out, err := w.Daemon.Ctl(w.ctx, "status")
		printed, code = out, exitCode(err)
		if page, _, err = w.Daemon.Get(w.ctx, "/readyz"); err != nil {
			return false, err
		}
		if metric, err = w.Daemon.Metric(w.ctx, "sessiond_ready"); err != nil {
			return false, err
		}
		if ready {
			return code == 0 && page == 200 && metric == "1", nil
		}
		return code == 4 && page == 503 && metric == "0", nil
	})
	if err != nil {
		w.t.Fatalf("%v: exit code %d, /readyz %d, metric %s; want ready: %t", err, code, page, metric, ready)
	}
	if !strings.Contains(printed, "Ready") || !strings.Contains(printed, "GROUP") {
		w.t.Errorf("the status is not printed: %s", printed)
	}
}

func exitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	return -1
}
