package main

import (
	"errors"
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

// TestVerifyNamesTheUnread: a trail that could not be read is an error of its own, and the others
// are shown; a flaw comes before it.
func TestVerifyNamesTheUnread(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	b.Audits.Checks = append(b.Audits.Checks, audit.Verified{Trail: "east", Unread: "dial tcp: connection refused"}, audit.Verified{Unread: "i/o timeout"})
	address := controltest.Serve(t, b, nil).Address
	r := ctl(t, address, "", "audit", "verify")
	if r.code != exitUnreachable || !strings.Contains(r.stderr, "trail east cannot be read: dial tcp: connection refused; the list of trails of groups that are not configured cannot be read: i/o timeout") {
		t.Errorf("code %d, %s", r.code, r.stderr)
	}
	if !strings.Contains(r.stdout, "default/1") || !strings.Contains(r.stdout, "east") || strings.Count(r.stdout, "not known") != 2 {
		t.Errorf("shown are\n%s", r.stdout)
	}
	b.Audits.Checks[1].Flaw = &audit.Flaw{Number: 1, Kind: audit.Changed, Detail: "odd"}
	r = ctl(t, address, "", "audit", "verify")
	if r.code != exitRefused || !strings.Contains(r.stderr, "entry default/1 of") || !strings.Contains(r.stderr, "trail east cannot be read") {
		t.Errorf("with a flaw: code %d, %s", r.code, r.stderr)
	}
}

// TestListNamesTheUnread: entries of trails that can be read are listed, and the others are an error.
func TestListNamesTheUnread(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	b.Audits.Unread = []audit.Unread{{Trail: "east", Err: errors.New("connection refused")}, {Err: errors.New("i/o timeout")}}
	r := ctl(t, controltest.Serve(t, b, nil).Address, "", "audit", "list")
	want := "entries are missing: the list of trails of groups that are not configured cannot be read: i/o timeout; trail east cannot be read: connection refused\n" +
		"  the list has those of the other trails; repeat the command once Redis answers for all"
	if r.code != exitUnreachable || !strings.Contains(r.stderr, want) || !strings.Contains(r.stdout, "default/1") {
		t.Errorf("code %d, %s\n%s", r.code, r.stderr, r.stdout)
	}
}

// TestAuditTimes: the times of a list are those of all commands.
func TestAuditTimes(t *testing.T) {
	t.Parallel()
	address := controltest.Serve(t, controltest.Scene(), nil).Address
	for flags, entries := range map[string]int{
		"--from -30m": 2, "--from -2h": 3, "--from -2h --to -30m": 1, "--from 11:30": 2, "--to 11:30": 1, "--from 2026-03-01T11:59:01Z": 1, "--from -1s": 0,
	} {
		r := ctl(t, address, "", append([]string{"audit", "list", "-o", "json"}, strings.Fields(flags)...)...)
		if got := strings.Count(r.stdout, "\n"); r.code != exitDone || got != entries {
			t.Errorf("%s: %d entries, code %d, %s", flags, got, r.code, r.stderr)
		}
	}
	if r := ctl(t, address, "", "audit", "list", "--from", "2026-03-01 11:59:00", "-o", "json"); strings.Count(r.stdout, "\n") != 2 {
		t.Errorf("a local time: %s%s", r.stdout, r.stderr)
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
