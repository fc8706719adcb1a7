// Package alarms tests the alert rules of deploy/prometheus and the dashboard of deploy/grafana with
// the tools of Prometheus, and against the metrics of a real daemon.
package alarms

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/sessiond/sessiond/internal/rig"
	"github.com/sessiond/sessiond/internal/testenv"
)

const (
	rulesFile     = "../../deploy/prometheus/sessiond.rules.yml"
	dashboardFile = "../../deploy/grafana/sessiond.json"
	runbooks      = "https://github.com/sessiond/sessiond/blob/main/docs/metrics.md#"
)

var programs *rig.Programs

func TestMain(m *testing.M) { os.Exit(rig.Main(m, &programs)) }

// alertRule is one rule of the file.
type alertRule struct {
	Alert       string            `yaml:"alert"`
	Expr        string            `yaml:"expr"`
	For         string            `yaml:"for"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

func readRules(t *testing.T) []alertRule {
	t.Helper()
	text, err := os.ReadFile(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Name  string      `yaml:"name"`
			Rules []alertRule `yaml:"rules"`
		} `yaml:"groups"`
	}
	if err := yaml.UnmarshalWithOptions(text, &file, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	var rules []alertRule
	for _, g := range file.Groups {
		rules = append(rules, g.Rules...)
	}
	return rules
}

// history is series with their values, one a minute, in the notation of promtool: "a+bxn" begins with
// a and grows by b n times.
type history []string

// of is the labels that a scrape adds.
const of = `job="sessiond",instance="cgn1"`

// alarmCases has, for each rule, a history in which it fires an hour after its begin, and one in
// which it is silent at each minute.
var alarmCases = map[string]struct{ fires, silent history }{
	"SessiondDown":                  {history{`up{` + of + `} 0x90`}, history{`up{` + of + `} 1x90`, `up{job="node"} 0x90`}},
	"SessiondNotReady":              {history{`sessiond_ready{` + of + `} 0x90`}, history{`sessiond_ready{` + of + `} 1x58 0 1x40`}},
	"SessiondConfigRefused":         {history{`sessiond_config_last_reload_successful{` + of + `} 1x10 0x80`}, history{`sessiond_config_last_reload_successful{` + of + `} 1x90`}},
	"SessiondKeyFilesRefused":       {history{`sessiond_key_files_last_reload_successful{` + of + `,kind="tokens"} 1x10 0x80`, `sessiond_key_files_last_reload_successful{` + of + `,kind="certificate"} 1x90`}, history{`sessiond_key_files_last_reload_successful{` + of + `,kind="tokens"} 1x90`}},
	"SessiondDatabaseSuspect":       {history{`sessiond_database_suspect{` + of + `} 1x90`}, history{`sessiond_database_suspect{` + of + `} 0x90`}},
	"SessiondRemovalsHeld":          {history{`sessiond_removals_held{` + of + `,group="a",reason="expired"} 0x50 7x40`, `sessiond_removals_held{` + of + `,group="a",reason="nas_restart"} 0x90`}, history{`sessiond_removals_held{` + of + `,group="a",reason="expired"} 0x90`}},
	"SessiondNatOwnerLost":          {history{`sessiond_nat_owner{` + of + `,group="a"} 0x90`, `sessiond_redis_up{` + of + `} 1x90`}, history{`sessiond_nat_owner{` + of + `,group="a"} 0x90`, `sessiond_redis_up{` + of + `} 0x90`, `sessiond_redis_up{job="sessiond",instance="cgn2"} 1x90`}},
	"SessiondRedisDown":             {history{`sessiond_redis_up{` + of + `} 0x90`}, history{`sessiond_redis_up{` + of + `} 1x90`}},
	"SessiondRedisNotificationsOff": {history{`sessiond_redis_notifications{` + of + `} 0x90`}, history{`sessiond_redis_notifications{` + of + `} 1x55 0x4 1x40`}},
	"SessiondAccountingLost":        {history{`sessiond_radius_requests_total{` + of + `,client="bng1",type="unread",result="bad_authenticator"} 0x50 1x40`}, history{`sessiond_radius_requests_total{` + of + `,client="bng1",type="start",result="ok"} 0+9x90`, `sessiond_radius_requests_total{` + of + `,client="bng1",type="start",result="dropped"} 5x90`}},
	"SessiondSocketDrops":           {history{`sessiond_radius_socket_drops_total{` + of + `} 0x50 3x40`}, history{`sessiond_radius_socket_drops_total{` + of + `} 3x90`}},
	"SessiondPoolExhausted":         {history{`sessiond_subscribers_pending{` + of + `,group="a"} 4x90`}, history{`sessiond_subscribers_pending{` + of + `,group="a"} 0x90`}},
	"SessiondFeedLag":               {history{`sessiond_feed_lag_seconds{` + of + `,group="a"} 6x90`}, history{`sessiond_feed_lag_seconds{` + of + `,group="a"} 0x59 30 0x40`}},
	"SessiondFeedFilling":           {history{`sessiond_feed_fill_ratio{` + of + `,group="a"} 0.6x90`}, history{`sessiond_feed_fill_ratio{` + of + `,group="a"} 0.4x90`}},
	"SessiondFeedGaps":              {history{`sessiond_feed_gaps_total{` + of + `,group="a"} 0x50 1x40`}, history{`sessiond_feed_gaps_total{` + of + `,group="a"} 2x90`}},
	"SessiondForeignNasRestart":     {history{`sessiond_accounting_verdicts_total{` + of + `,group="",verdict="foreign_nas"} 0x50 1x40`}, history{`sessiond_accounting_verdicts_total{` + of + `,group="",verdict="foreign_nas"} 1x90`, `sessiond_accounting_verdicts_total{` + of + `,group="a",verdict="refreshed"} 0+5x90`}},
	"SessiondForeignSubscribers":    {history{`sessiond_accounting_refused_total{` + of + `,client="bng1",verdict="foreign_holder"} 0x50 1x40`}, history{`sessiond_accounting_refused_total{` + of + `,client="bng1",verdict="foreign_holder"} 1x90`, `sessiond_accounting_refused_total{` + of + `,client="bng1",verdict="stale"} 0+1x90`}},
	"SessiondClientFull":            {history{`sessiond_accounting_refused_total{` + of + `,client="bng1",verdict="client_full"} 0+1x90`}, history{`sessiond_accounting_refused_total{` + of + `,client="bng1",verdict="stale"} 0+1x90`}},
	"SessiondLimitReached":          {history{`sessiond_limit_reached_total{` + of + `,group="a",limit="sessions"} 0x1441 0+1x120`}, history{`sessiond_limit_reached_total{` + of + `,group="a",limit="sessions"} 5x1600`, `sessiond_limit_reached_total{` + of + `,group="b",limit="tcp_ports"} 0x1441 0+1x120`}},
	"SessiondDatabaseGarbage":       {history{`sessiond_database_garbage_total{` + of + `,group="a",kind="record"} 0x50 1x40`}, history{`sessiond_database_garbage_total{` + of + `,group="a",kind="record"} 1x90`}},
	"SessiondClientBound":           {history{`sessiond_accounting_bounds_reached_total{` + of + `,client="bng1",bound="nases"} 0x50 1x40`}, history{`sessiond_accounting_bounds_reached_total{` + of + `,client="bng1",bound="nases"} 0x90`}},
	"SessiondNasClockOrIdentifiersWrong": {
		history{`sessiond_accounting_refused_total{` + of + `,client="bng1",verdict="stale"} 0+2x90`, `sessiond_radius_requests_total{` + of + `,client="bng1",type="interim",result="ok"} 0+100x90`},
		history{`sessiond_accounting_refused_total{` + of + `,client="bng1",verdict="stale"} 0+1x90`, `sessiond_accounting_refused_total{` + of + `,client="bng1",verdict="foreign_nas"} 0+50x90`, `sessiond_radius_requests_total{` + of + `,client="bng1",type="interim",result="ok"} 0+200x90`},
	},
	"SessiondNasConflict":               {history{`sessiond_nas_conflicts_total{` + of + `,client="bng1"} 0x50 1x40`}, history{`sessiond_nas_conflicts_total{` + of + `,client="bng1"} 1x90`}},
	"SessiondGrpcCallersRefused":        {history{`sessiond_grpc_streams_ended_total{` + of + `,method="WatchSubscribers",reason="lagged"} 0x50 1x40`}, history{`sessiond_grpc_streams_ended_total{` + of + `,method="WatchSubscribers",reason="done"} 0+1x90`, `sessiond_grpc_streams_refused_total{` + of + `,method="Watch",cause="limit"} 0x90`, `sessiond_grpc_connections_refused_total{` + of + `,cause="limit"} 4x90`}},
	"SessiondBarrierMissing":            {history{`sessiond_outside_barrier{` + of + `} 0x90`}, history{`sessiond_outside_barrier{` + of + `} 1x90`}},
	"SessiondForeignTranslations":       {history{`sessiond_foreign_translations_total{` + of + `} 0x57 2x40`}, history{`sessiond_foreign_translations_total{` + of + `} 2x90`}},
	"SessiondFlowtableRefused":          {history{`sessiond_flowtables{` + of + `,use="refused"} 1x90`}, history{`sessiond_flowtables{` + of + `,use="refused"} 0x90`, `sessiond_flowtables{` + of + `,use="own"} 1x90`}},
	"SessiondConntrackFull":             {history{`sessiond_conntrack_entries{` + of + `} 81x90`, `sessiond_conntrack_limit{` + of + `} 100x90`}, history{`sessiond_conntrack_entries{` + of + `} 79x90`, `sessiond_conntrack_limit{` + of + `} 100x90`, `sessiond_conntrack_entries{job="sessiond",instance="unknown"} 9x90`, `sessiond_conntrack_limit{job="sessiond",instance="unknown"} 0x90`}},
	"SessiondLearnedMappingsFull":       {history{`sessiond_learned_mappings{` + of + `} 81x90`, `sessiond_learned_mappings_limit{` + of + `} 100x90`}, history{`sessiond_learned_mappings{` + of + `} 0x90`, `sessiond_learned_mappings_limit{` + of + `} 0x90`}},
	"SessiondSubscribersAtSessionLimit": {history{`sessiond_subscribers_at_session_limit{` + of + `} 1x90`}, history{`sessiond_subscribers_at_session_limit{` + of + `} 0x90`}},
	"SessiondDrift":                     {history{`sessiond_drift_total{` + of + `,kind="element_missing"} 0x50 1x40`}, history{`sessiond_drift_total{` + of + `,kind="element_missing"} 1x90`}},
	"SessiondConntrackEventsMissing":    {history{`sessiond_conntrack_index_drift_total{` + of + `,kind="missed"} 0x50 1x40`}, history{`sessiond_conntrack_index_drift_total{` + of + `,kind="stale"} 0+1x90`, `sessiond_conntrack_index_drift_total{` + of + `,kind="missed"} 0x90`}},
	"SessiondAuditUnwritten":            {history{`sessiond_audit_write_failures_total{` + of + `} 0x55 1x35`}, history{`sessiond_audit_write_failures_total{` + of + `} 1x90`}},
	"SessiondAuditCopyIncomplete":       {history{`sessiond_audit_sink_lost_total{` + of + `,sink="file"} 0x50 1x40`}, history{`sessiond_audit_sink_lost_total{` + of + `,sink="file"} 1x90`}},
	"SessiondExportDown":                {history{`sessiond_export_up{` + of + `,sink="syslog udp://c"} 1x30 0x60`}, history{`sessiond_export_up{` + of + `,sink="syslog udp://c"} 1x50 0x5 1x35`}},
	"SessiondExportLost":                {history{`sessiond_export_records_total{` + of + `,sink="syslog udp://c",result="dropped"} 0x50 9x40`}, history{`sessiond_export_records_total{` + of + `,sink="syslog udp://c",result="sent"} 0+9x90`, `sessiond_export_records_total{` + of + `,sink="syslog udp://c",result="dropped"} 9x90`}},
	"SessiondExportGap":                 {history{`sessiond_export_gaps_total{` + of + `,group="a"} 0x50 1x40`}, history{`sessiond_export_gaps_total{` + of + `,group="a"} 1x90`}},
	"SessiondHistoryDown":               {history{`sessiond_history_up{` + of + `} 1x50 0x40`}, history{`sessiond_history_up{` + of + `} 1x50 0x3 1x37`}},
	"SessiondHistoryGap":                {history{`sessiond_history_gaps_total{` + of + `,group="a"} 0x50 1x40`}, history{`sessiond_history_gaps_total{` + of + `,group="a"} 1x90`}},
	"SessiondSlowRemoval": {
		history{`sessiond_stop_to_cut_seconds_bucket{` + of + `,le="1"} 0+90x90`, `sessiond_stop_to_cut_seconds_bucket{` + of + `,le="2.5"} 0+100x90`, `sessiond_stop_to_cut_seconds_bucket{` + of + `,le="+Inf"} 0+100x90`},
		history{`sessiond_stop_to_cut_seconds_bucket{` + of + `,le="1"} 0+100x90`, `sessiond_stop_to_cut_seconds_bucket{` + of + `,le="2.5"} 0+100x90`, `sessiond_stop_to_cut_seconds_bucket{` + of + `,le="+Inf"} 0+100x90`},
	},
}

// alarmsOver has histories in which a rule has fired, and is silent again when they are looked at.
var alarmsOver = map[string]history{
	"SessiondConfigRefused":       {`sessiond_config_last_reload_successful{` + of + `} 0x10 1x80`},
	"SessiondKeyFilesRefused":     {`sessiond_key_files_last_reload_successful{` + of + `,kind="tokens"} 0x10 1x80`},
	"SessiondRemovalsHeld":        {`sessiond_removals_held{` + of + `,group="a",reason="expired"} 7x50 0x40`},
	"SessiondForeignSubscribers":  {`sessiond_accounting_refused_total{` + of + `,client="bng1",verdict="foreign_holder"} 0x30 1x60`},
	"SessiondLimitReached":        {`sessiond_limit_reached_total{` + of + `,group="a",limit="sessions"} 0+1x1600`},
	"SessiondForeignTranslations": {`sessiond_foreign_translations_total{` + of + `} 0x30 2x60`},
}

// lookedAt is the time after its begin at which a history is looked at.
func lookedAt(alert string) string {
	if alert == "SessiondLimitReached" {
		return "1501m" // it compares with the day before
	}
	return "60m"
}

// firing selects the samples of an alert while it fires.
func firing(alert string) string {
	return fmt.Sprintf(`ALERTS{alertname="%s", alertstate="firing"}`, alert)
}

// steps are the numbers of steps in a history.
var steps = regexp.MustCompile(`x(\d+)`)

// lastMinute is the time of the last value of a history after its begin.
func lastMinute(h history) string {
	last := 0
	for _, series := range h {
		n := 0
		for _, m := range steps.FindAllStringSubmatch(series, -1) {
			more, _ := strconv.Atoi(m[1]) // digits
			n += more
		}
		last = max(last, n)
	}
	return fmt.Sprintf("%dm", last)
}

// writeHistory adds a history to a file of promtool, and the counts that are 1, or none, at a time.
func writeHistory(to *strings.Builder, name string, h history, at string, counts map[string]bool) {
	fmt.Fprintf(to, "- name: %q\n  interval: 1m\n  input_series:\n", name)
	for _, series := range h {
		i := strings.LastIndex(series, "} ") + 1
		fmt.Fprintf(to, "  - {series: '%s', values: '%s'}\n", series[:i], series[i+1:])
	}
	to.WriteString("  promql_expr_test:\n")
	for expr, one := range counts {
		samples := "[]"
		if one {
			samples = "[{labels: '{}', value: 1}]"
		}
		fmt.Fprintf(to, "  - {expr: '%s', eval_time: %s, exp_samples: %s}\n", expr, at, samples)
	}
}

// promtool runs promtool and returns its output.
func promtool(t *testing.T, args ...string) (string, error) {
	t.Helper()
	testenv.Require(t, testenv.Promtool)
	out, err := exec.CommandContext(t.Context(), "promtool", args...).CombinedOutput()
	return string(out), err
}

// TestAlarms: each rule fires in one history, once, and at no minute of another.
func TestAlarms(t *testing.T) {
	t.Parallel()
	rules := readRules(t)
	if len(rules) != len(alarmCases) {
		t.Errorf("%d rules, and %d cases", len(rules), len(alarmCases))
	}
	absolute, err := filepath.Abs(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	var tests strings.Builder
	fmt.Fprintf(&tests, "rule_files: [%q]\nevaluation_interval: 1m\ntests:\n", absolute)
	for _, r := range rules {
		c, ok := alarmCases[r.Alert]
		if !ok {
			t.Errorf("%s has no case", r.Alert)
			continue
		}
		now, ever := "count("+firing(r.Alert)+")", "count(count_over_time("+firing(r.Alert)+"[30h]))"
		writeHistory(&tests, r.Alert+" fires", c.fires, lookedAt(r.Alert), map[string]bool{now: true})
		writeHistory(&tests, r.Alert+" is silent", c.silent, lastMinute(c.silent), map[string]bool{ever: false})
		if over, ok := alarmsOver[r.Alert]; ok {
			writeHistory(&tests, r.Alert+" is over", over, lookedAt(r.Alert), map[string]bool{ever: true, now: false})
		}
	}
	file := filepath.Join(t.TempDir(), "tests.yml")
	if err := os.WriteFile(file, []byte(tests.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := promtool(t, "test", "rules", file); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestRunbooks: each rule has a severity, a summary, and a link to its heading in docs/metrics.md;
// and each alarm there has its rule.
func TestRunbooks(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	_, alarms, _ := strings.Cut(string(doc), "\n## Alarms\n")
	var documented []string
	for _, m := range regexp.MustCompile(`(?m)^### (\w+)\n\n\S`).FindAllStringSubmatch(alarms, -1) {
		documented = append(documented, m[1])
	}
	for _, r := range readRules(t) {
		if s := r.Labels["severity"]; !slices.Contains([]string{"critical", "warning", "info"}, s) {
			t.Errorf("%s has the severity %q", r.Alert, s)
		}
		if r.Annotations["summary"] == "" || r.Annotations["runbook_url"] != runbooks+strings.ToLower(r.Alert) {
			t.Errorf("%s has the annotations %v", r.Alert, r.Annotations)
		}
		i := slices.Index(documented, r.Alert)
		if i < 0 {
			t.Errorf("docs/metrics.md has no heading %s", r.Alert)
			continue
		}
		documented = slices.Delete(documented, i, i+1)
	}
	if len(documented) > 0 {
		t.Errorf("docs/metrics.md has alarms without a rule: %v", documented)
	}
}

// scrape returns the metrics of a real daemon.
func scrape(t *testing.T) string {
	t.Helper()
	testenv.Require(t, testenv.Redis)
	r, err := rig.Start(t.Context(), rig.Options{Sessiond: programs.Sessiond, Sessionctl: programs.Sessionctl, Memory: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	err = r.Daemon.Edit(func(config string) string { // theirs are there only with a collector and a history
		return config + fmt.Sprintf("export: {syslog: [{collector: 'udp://127.0.0.1:9'}], spool: {path: %q}}\nhistory: {path: %q}\n", t.TempDir(), t.TempDir())
	})
	if err == nil {
		_, err = r.Daemon.Stop()
	}
	if err == nil {
		err = r.Daemon.Start(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	_, body, err := r.Daemon.Get(t.Context(), "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	return body
}

var (
	sample   = regexp.MustCompile(`(?m)^([a-z_]+)(?:\{(.*)\})? \S+$`)
	label    = regexp.MustCompile(`([a-z]+)(?:=~|!~|!=|=)"`)
	selector = regexp.MustCompile(`\b((?:sessiond|process|go)_[a-z_]+)(?:\{([^}]*)\})?`)
)

// labelsOf returns the labels of each metric in a scrape.
func labelsOf(text string) map[string][]string {
	found := map[string][]string{}
	for _, m := range sample.FindAllStringSubmatch(text, -1) {
		found[m[1]] = append(found[m[1]], "job", "instance")
		for _, l := range label.FindAllStringSubmatch(m[2], -1) {
			found[m[1]] = append(found[m[1]], l[1])
		}
	}
	return found
}

// TestMetricsOfADaemon: promtool has nothing to say about the metrics of a real daemon, and each
// metric, with its labels, in a rule or in the dashboard is among them.
func TestMetricsOfADaemon(t *testing.T) {
	t.Parallel()
	text := scrape(t)
	testenv.Require(t, testenv.Promtool)
	check := exec.CommandContext(t.Context(), "promtool", "check", "metrics")
	check.Stdin = strings.NewReader(text)
	if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
	there := labelsOf(text)
	if len(there) < 60 {
		t.Fatalf("%d metrics are read", len(there))
	}
	expressions := dashboardExpressions(t)
	for _, r := range readRules(t) {
		expressions[r.Alert] = r.Expr
	}
	for where, e := range expressions {
		used := selector.FindAllStringSubmatch(e, -1)
		if len(used) == 0 && where != "SessiondDown" {
			t.Errorf("%s uses no metric: %s", where, e)
		}
		for _, m := range used {
			labels, ok := there[m[1]]
			if !ok {
				t.Errorf("%s: there is no metric %s", where, m[1])
			}
			for _, l := range label.FindAllStringSubmatch(m[2], -1) {
				if !slices.Contains(labels, l[1]) {
					t.Errorf("%s: %s has no label %s", where, m[1], l[1])
				}
			}
		}
	}
}

// dashboardExpressions returns the expressions of the dashboard by panel, as Grafana sends them.
func dashboardExpressions(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr, RefID string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	replaced := strings.NewReplacer("$__rate_interval", "1m", "$instance", "cgn1")
	expressions := map[string]string{}
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			name := p.Title + " " + target.RefID
			if _, twice := expressions[name]; twice {
				t.Errorf("two expressions have the name %s", name)
			}
			expressions[name] = replaced.Replace(target.Expr)
		}
	}
	if len(expressions) < 20 {
		t.Fatalf("the dashboard has %d expressions", len(expressions))
	}
	return expressions
}

// TestDashboardParses: Prometheus can parse every expression of the dashboard.
func TestDashboardParses(t *testing.T) {
	t.Parallel()
	var file strings.Builder
	file.WriteString("groups:\n- name: dashboard\n  rules:\n")
	for name, e := range dashboardExpressions(t) {
		if strings.Contains(e, "$") {
			t.Errorf("%s has an unknown variable: %s", name, e)
		}
		quoted, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&file, "  - record: dashboard:expression\n    labels: {panel: %q}\n    expr: %s\n", name, quoted)
	}
	path := filepath.Join(t.TempDir(), "dashboard.yml")
	if err := os.WriteFile(path, []byte(file.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := promtool(t, "check", "rules", path); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
