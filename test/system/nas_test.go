package system

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"

	"layeh.com/radius/rfc2866"

	"github.com/sessiond/sessiond/internal/radiusacct/acctclient"
	"github.com/sessiond/sessiond/internal/rig"
)

// TestWrongClockIsFound_SES13: sessionctl and a counter show a NAS whose clock is hours
// behind and whose events are refused, also right after an orderly stop of the daemon.
// Without Redis sessionctl returns an error instead.
func TestWrongClockIsFound_SES13(t *testing.T) {
	w := start(t, rig.Options{Memory: true})
	const nas = "behind / 1"
	account := func(status rfc2866.AcctStatusType, ahead time.Duration) {
		t.Helper()
		w.must(w.Send(w.ctx, acctclient.Request{
			Status: status, SessionID: "a-1", UserName: "alice", FramedAddress: alice, NASIdentifier: nas, EventTime: time.Now().Add(ahead),
		}))
	}
	account(rfc2866.AcctStatusType_Value_Start, -8*time.Hour)
	if _, err := w.AwaitState(w.ctx, alice, "ACTIVE"); err != nil {
		t.Fatal(err)
	}
	w.showsNAS(nas, 1, 0)
	account(rfc2866.AcctStatusType_Value_Stop, -8*time.Hour)
	account(rfc2866.AcctStatusType_Value_InterimUpdate, -8*time.Hour)
	code, err := w.Daemon.Stop()
	if w.must(err); code != 0 {
		t.Errorf("stopped with %d", code)
	}
	w.must(w.Daemon.Start(w.ctx))
	w.showsNAS(nas, 0, 1)
	account(rfc2866.AcctStatusType_Value_InterimUpdate, -8*time.Hour)
	w.showsNAS(nas, 0, 2)
	if n, err := w.Daemon.Metric(w.ctx, `sessiond_accounting_refused_total{client="bng1",verdict="ended"}`); err != nil || n != "1" {
		t.Errorf("since the start %q events were refused, %v", n, err)
	}
	if table := w.ctl("nas", "list"); !strings.Contains(table, "8h behind") || !strings.Contains(table, "2 ended") {
		t.Errorf("printed\n%s", table)
	}
	w.must(w.Redis.Kill())
	if out, err := w.Daemon.Ctl(w.ctx, "nas", "list"); err == nil || !strings.Contains(err.Error()+out, "check Redis") {
		t.Errorf("without Redis: %q, %v", out, err)
	}
}

// showsNAS checks that sessionctl shows the NAS, 8 hours behind.
func (w *world) showsNAS(nas string, subscribers, refused int) {
	w.t.Helper()
	var shown struct {
		Client      string            `json:"client"`
		Subscribers int               `json:"subscribers"`
		Heard       time.Time         `json:"last_heard_at"`
		Offset      string            `json:"clock_offset"`
		Refused     map[string]string `json:"refused"`
	}
	out := w.ctl("-o", "json", "nas", "get", nas)
	w.must(json.Unmarshal([]byte(out), &shown))
	offset, err := time.ParseDuration(shown.Offset)
	if err != nil || (offset+8*time.Hour).Abs() > 3*time.Second || shown.Subscribers != subscribers || time.Since(shown.Heard) > time.Minute {
		w.t.Errorf("shown: %s", out)
	}
	if got, _ := strconv.Atoi(shown.Refused["ended"]); got != refused {
		w.t.Errorf("want %d refused events: %s", refused, out)
	}
}
