package main

import (
	"strings"
	"testing"

	"github.com/sessiond/sessiond/internal/audit"
	"github.com/sessiond/sessiond/internal/control/controltest"
)

// TestVerifyNamesTheFlaw: a trail with a flaw is an error, and the entry is named.
func TestVerifyNamesTheFlaw(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	b.Audits.Checks[1].Flaw = &audit.Flaw{Number: 1, Kind: audit.Changed, Detail: "its text does not have its hash"}
	r := ctl(t, controltest.Serve(t, b, nil).Address, "", "audit", "verify")
	if r.code != exitRefused || !strings.Contains(r.stderr, "entry default/1 of the audit trail is not as it was written: changed: its text does not have its hash") {
		t.Errorf("code %d, %s", r.code, r.stderr)
	}
}

// TestOrderFlagsReachTheDaemon: each command that changes something passes on its reason and
// the request's name, and with --validate-only changes nothing.
func TestOrderFlagsReachTheDaemon(t *testing.T) {
	t.Parallel()
	for _, line := range []string{
		"subscriber delete 100.64.0.7 --yes", "subscriber put 100.64.0.7 --user dave", "session kill --inside 100.64.0.7 --yes",
		"settings set subscriber_session_removal=off", "removal confirm --inside 0.0.0.0/0 --yes", "removal refuse --inside 0.0.0.0/0 --yes",
		"pool add 203.0.113.0/28", "pool drain 198.51.100.0/28", "pool remove 198.51.100.0/28 --allow-disruption --yes",
		"mapping create :22 --owner bob --protocol tcp", "mapping delete 198.51.100.1:60022 --protocol tcp --yes", "reconcile",
	} {
		b := controltest.Scene()
		server := controltest.Serve(t, b, nil)
		reason := "--reason"
		if strings.HasPrefix(line, "removal") {
			reason = "--audit-reason"
		}
		fields := append(strings.Fields(line), reason, "ticket 7", "--request-id", "r1")
		if r := ctl(t, server.Address, "", append(fields, "--validate-only")...); r.code != exitDone || len(b.Orders) != 0 {
			t.Errorf("%s --validate-only: code %d, %d orders, %s", line, r.code, len(b.Orders), r.stderr)
		}
		r := ctl(t, server.Address, "", fields...)
		if r.code != exitDone || len(b.Orders) != 1 || b.Orders[0].Reason != "ticket 7" || b.Orders[0].RequestID != "r1" {
			t.Errorf("%s: code %d, orders %+v, %s", line, r.code, b.Orders, r.stderr)
		}
	}
}
