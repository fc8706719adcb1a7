package metrics

import (
	"fmt"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/portuse"
	"github.com/sessiond/sessiond/internal/subscriber"
)

type fixed Snapshot

func (f fixed) Snapshot() Snapshot { return Snapshot(f) }

// used returns metrics with a value each.
func used() *Metrics {
	m := New("v1")
	m.Watch(fixed{
		Ready: true, RedisUp: true, Notified: true, DatabaseSuspect: true, Sessions: 7,
		Index:   Index{Overruns: 1, Missed: 2, Stale: 3, Passes: 4},
		Learned: Learned{Mappings: 8, Limit: 9}, Flowtables: Flowtables{Own: true, Refused: 2},
		RADIUS: RADIUS{Datagrams: 5, Replies: 6, Accepts: 7},
		Drops:  []nat.DropCount{{Drop: nat.Drop{Reason: nat.DropNoGate, Direction: nat.DropOut}, Packets: 8}},
		Groups: []Group{{
			Name: "default", Subscribers: 3, Pending: 1, FeedLag: 1500 * time.Millisecond, FeedGaps: 2, FeedFill: 0.25,
			Bindings: map[string]int{"active": 2}, Mappings: map[string]int{"static": 4}, Blocks: map[string]int{"free": 9},
			Ports: nat.PortUse{UDP: 300}, Users: countsOf(300), PeakUsers: countsOf(300, 40),
		}},
	})
	m.Reloaded(false, time.UnixMilli(1_700_000_000_500))
	m.Request("bng1", "start", "ok", time.Millisecond)
	m.Request("", "unread", "unknown_client", 0)
	m.ConnectionOpened("bng1")
	m.ConnectionOpened("bng1")
	m.ConnectionClosed("bng1", "idle")
	m.ConnectionRefused("", "handshake")
	m.Removed("default", subscriber.ReasonStop)
	m.Observed("default", subscriber.ReasonStop, 5)
	m.Resized("default", inspect.GrowthInPlace)
	m.StopToCut(time.Millisecond)
	m.StopToReaped(-time.Millisecond) // the database's clock may be ahead
	m.Drift("element_missing")
	m.LimitReached("default", nat.LimitTCPPorts)
	m.Looked(inspect.LookPresence, time.Second)
	m.Verdict("", subscriber.ForeignNAS)
	m.AuditUnwritten()
	m.AuditLost("file", 3)
	m.ExpectSinks("syslog")
	m.Calls().FilesUsable("tokens", true)
	m.Calls().FilesUsable("certificate", false)
	m.Expect(Expected{Clients: []string{"bng1", "bng2"}})
	m.WatchExports(oneExport{})
	m.WatchHistory(oneHistory{})
	m.ExportGap("default")
	m.ExpectExport("default", "other")
	m.NASConflict("bng1")
	pcp := NewPCP(m, PCPLabels{Opcodes: []string{"map", "peer"}, Results: []string{"success"}, Announcements: []string{"announce"}, Groups: []string{"default"}})
	pcp.Request("map", "success")
	pcp.NonceMismatch("default")
	pcp.Announced("announce")
	return m
}

// oneExport is one collector of the NAT log.
type oneExport struct{}

func (oneExport) Exports() []Export {
	return []Export{{Sink: "ipfix udp://c", Sent: 3, Dropped: 4, SpoolOctets: 5, Up: true}}
}

// oneHistory is a history of one group.
type oneHistory struct{}

func (oneHistory) History() History {
	return History{
		Records: map[string]uint64{"released": 3}, Gaps: map[string]uint64{"default": 4},
		Through: map[string]time.Time{"default": time.UnixMilli(5500)}, Octets: 6, Up: true,
	}
}

func TestNamesAreLinted(t *testing.T) {
	problems, err := testutil.GatherAndLint(used().registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if ours(p) {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

func countsOf(numbers ...int) (c portuse.Counts) {
	for _, n := range numbers {
		c.Add(n)
	}
	return c
}

func ours(p promlint.Problem) bool { return strings.HasPrefix(p.Metric, "sessiond_") }

func scrape(t *testing.T, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}

// TestContract checks the names and labels on which dashboards rely.
func TestContract(t *testing.T) {
	got := scrape(t, used())
	for _, line := range []string{
		`sessiond_radius_requests_total{client="bng1",result="ok",type="start"} 1`,
		`sessiond_radius_response_seconds_count 1`,
		`sessiond_audit_write_failures_total 1`, `sessiond_audit_sink_lost_total{sink="file"} 3`, `sessiond_audit_sink_lost_total{sink="syslog"} 0`,
		`sessiond_export_records_total{result="sent",sink="ipfix udp://c"} 3`, `sessiond_export_records_total{result="dropped",sink="ipfix udp://c"} 4`,
		`sessiond_export_spool_bytes{sink="ipfix udp://c"} 5`, `sessiond_export_up{sink="ipfix udp://c"} 1`,
		`sessiond_export_gaps_total{group="default"} 1`, `sessiond_export_gaps_total{group="other"} 0`,
		`sessiond_history_records_total{kind="released"} 3`, `sessiond_history_records_total{kind="allocated"} 0`,
		`sessiond_history_gaps_total{group="default"} 4`, `sessiond_history_through_timestamp_seconds{group="default"} 5.5`,
		`sessiond_history_bytes 6`, `sessiond_history_up 1`,
		`sessiond_pcp_requests_total{opcode="map",result="success"} 1`, `sessiond_pcp_requests_total{opcode="peer",result="success"} 0`,
		`sessiond_pcp_nonce_mismatches_total{group="default"} 1`, `sessiond_pcp_announcements_total{kind="announce"} 1`,
		`sessiond_key_files_last_reload_successful{kind="tokens"} 1`, `sessiond_key_files_last_reload_successful{kind="certificate"} 0`,
		`sessiond_radsec_connections{client="bng1"} 1`,
		`sessiond_radsec_connections_closed_total{cause="idle",client="bng1"} 1`,
		`sessiond_radsec_connections_refused_total{cause="handshake",client=""} 1`,
		`sessiond_subscribers{group="default"} 3`,
		`sessiond_bindings{group="default",state="active"} 2`,
		`sessiond_blocks{group="default",state="free"} 9`,
		`sessiond_mappings{group="default",kind="static"} 4`,
		`sessiond_removals_total{group="default",reason="stop"} 1`,
		`sessiond_removals_observed_total{group="default",reason="stop"} 1`,
		`sessiond_growths_total{group="default",result="in_place"} 1`,
		`sessiond_sessions_observed_total{group="default"} 5`,
		`sessiond_limit_reached_total{group="default",limit="tcp_ports"} 1`,
		`sessiond_stop_to_cut_seconds_count 1`,
		`sessiond_flowtables{use="own"} 1`, `sessiond_flowtables{use="accepted"} 0`, `sessiond_flowtables{use="refused"} 2`,
		`sessiond_stop_to_reaped_seconds_count 1`,
		`sessiond_ports_in_use{group="default",protocol="udp"} 300`,
		`sessiond_subscriber_ports_bucket{group="default",le="256"} 0`,
		`sessiond_subscriber_ports_bucket{group="default",le="512"} 1`,
		`sessiond_subscriber_ports_sum{group="default"} 300`,
		`sessiond_binding_ports_peak_count{group="default"} 2`,
		`sessiond_sessions 7`,
		`sessiond_conntrack_overruns_total 1`,
		`sessiond_conntrack_index_drift_total{kind="missed"} 2`,
		`sessiond_conntrack_index_drift_total{kind="stale"} 3`,
		`sessiond_conntrack_table_passes_total 4`,
		`sessiond_drops_total{direction="out",reason="no_gate"} 8`,
		`sessiond_drift_total{kind="element_missing"} 1`,
		`sessiond_accounting_verdicts_total{group="",verdict="foreign_nas"} 1`,
		`sessiond_ready 1`,
		`sessiond_radius_socket_drops_total 5`,
		`sessiond_radius_replies_failed_total 6`,
		`sessiond_radsec_accepts_failed_total 7`,
		`sessiond_feed_lag_seconds{group="default"} 1.5`,
		`sessiond_feed_gaps_total{group="default"} 2`,
		`sessiond_feed_fill_ratio{group="default"} 0.25`,
		`sessiond_config_last_reload_successful 0`,
		`sessiond_config_last_reload_timestamp_seconds 1.7000000005e+09`,
		`sessiond_nas_conflicts_total{client="bng1"} 1`,
		`sessiond_nas_conflicts_total{client="bng2"} 0`,
		`sessiond_redis_up 1`,
		`sessiond_redis_notifications 1`,
		`sessiond_database_suspect 1`,
		`sessiond_build_info{version="v1"} 1`,
	} {
		if !strings.Contains(got, line+"\n") {
			t.Errorf("missing: %s", line)
		}
	}
}

// TestEveryMetricIsDocumented: docs/metrics.md names every metric.
func TestEveryMetricIsDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	families, err := used().registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if name := f.GetName(); strings.HasPrefix(name, "sessiond_") && !strings.Contains(string(doc), "`"+name+"`") {
			t.Errorf("docs/metrics.md does not name %s", name)
		}
	}
}

// TestEveryDropIsDocumented: docs/metrics.md has a row for each reason, with its directions.
func TestEveryDropIsDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{} // directions by reason
	for line := range strings.Lines(string(doc)) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 {
			continue
		}
		for reason := range strings.SplitSeq(cells[1], ",") {
			rows[strings.Trim(reason, " `")] += cells[2]
		}
	}
	for _, d := range nat.Drops() {
		if !slices.Contains(strings.Fields(strings.ReplaceAll(rows[string(d.Reason)], ",", " ")), string(d.Direction)) {
			t.Errorf("docs/metrics.md has no row of %s with direction %s", d.Reason, d.Direction)
		}
	}
}

// TestExpectedAtZero: expected series exist before the first event, and keep
// their counts when more are expected.
func TestExpectedAtZero(t *testing.T) {
	m := New("v1")
	e := Expected{
		Groups: []string{"default"}, Clients: []string{"bng1"},
		Outcomes: []Outcome{{"start", "ok"}, {"start", "dropped"}}, Strangers: []Outcome{{"unread", "unknown_client"}},
		RadSec: []string{"bng1"}, Closings: []string{"idle"}, Limit: "limit", Refusals: []string{"handshake"},
	}
	m.Expect(e)
	m.Drift("binding_stale")
	m.Verdict("default", subscriber.Stale)
	e.Groups, e.Clients = append(e.Groups, "east"), append(e.Clients, "bng2")
	m.Expect(e)
	got := scrape(t, m)
	for _, line := range []string{
		`sessiond_radius_requests_total{client="bng1",result="dropped",type="start"} 0`,
		`sessiond_radius_requests_total{client="bng2",result="ok",type="start"} 0`,
		`sessiond_radius_requests_total{client="",result="unknown_client",type="unread"} 0`,
		`sessiond_radsec_connections{client="bng1"} 0`,
		`sessiond_radsec_connections_closed_total{cause="idle",client="bng1"} 0`,
		`sessiond_radsec_connections_refused_total{cause="limit",client="bng1"} 0`,
		`sessiond_radsec_connections_refused_total{cause="handshake",client=""} 0`,
		`sessiond_removals_total{group="default",reason="stop"} 0`,
		`sessiond_removals_total{group="east",reason="superseded"} 0`,
		`sessiond_removals_observed_total{group="east",reason="expired"} 0`,
		`sessiond_growths_total{group="east",result="no_room"} 0`,
		`sessiond_sessions_observed_total{group="east"} 0`,
		`sessiond_limit_reached_total{group="east",limit="new_sessions_per_second"} 0`,
		`sessiond_drift_total{kind="session_outofblock"} 0`,
		`sessiond_drift_total{kind="binding_stale"} 1`,
		`sessiond_reconcile_duration_seconds{look="everything"} 0`,
		`sessiond_accounting_verdicts_total{group="",verdict="foreign_nas"} 0`,
		`sessiond_accounting_verdicts_total{group="_",verdict="noted"} 0`,
		`sessiond_accounting_verdicts_total{group="default",verdict="stale"} 1`,
		`sessiond_accounting_verdicts_total{group="east",verdict="held"} 0`,
	} {
		if !strings.Contains(got, line+"\n") {
			t.Errorf("missing: %s", line)
		}
	}
	if strings.Contains(got, `verdict="not_here"`) {
		t.Error("a verdict is expected that is never counted")
	}
}

// TestCountersOfManyAtOnce: nothing that several goroutines count at once is lost, and a
// series appears with its first count.
func TestCountersOfManyAtOnce(t *testing.T) {
	m := New("v1")
	var counting sync.WaitGroup
	for range 4 {
		counting.Go(func() {
			for i := range 100 {
				m.Request(fmt.Sprint("bng", i%10), "start", "ok", 0)
				m.Request(fmt.Sprint("bng", i%10), "stop", "ok", 0)
			}
		})
	}
	counting.Wait()
	got := scrape(t, m)
	for i := range 10 {
		for _, kind := range []string{"start", "stop"} {
			line := fmt.Sprintf(`sessiond_radius_requests_total{client="bng%d",result="ok",type="%s"} 40`, i, kind)
			if !strings.Contains(got, line+"\n") {
				t.Errorf("missing: %s", line)
			}
		}
	}
	if n := strings.Count(got, "\nsessiond_radius_requests_total{"); n != 20 {
		t.Errorf("%d series, want 20", n)
	}
}

// BenchmarkVerdict measures counting the verdict of one accounting event.
func BenchmarkVerdict(b *testing.B) {
	m := New("v1")
	b.ReportAllocs()
	for b.Loop() {
		m.Verdict("default", subscriber.Refreshed)
	}
}

// BenchmarkRequest measures counting one answered request.
func BenchmarkRequest(b *testing.B) {
	m := New("v1")
	b.ReportAllocs()
	for b.Loop() {
		m.Request("bng1", "interim", "ok", time.Millisecond)
	}
}

// BenchmarkRemoved measures counting one binding that was torn down.
func BenchmarkRemoved(b *testing.B) {
	m := New("v1")
	b.ReportAllocs()
	for b.Loop() {
		m.Removed("default", subscriber.ReasonStop)
	}
}
