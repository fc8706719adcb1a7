package system

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/rig"
)

// pastRecord is a record of the history, as sessionctl shows it.
type pastRecord struct {
	UserName       string    `json:"user_name"`
	InsideAddress  string    `json:"inside_address"`
	OutsideAddress string    `json:"outside_address"`
	FirstPort      uint16    `json:"first_port"`
	LastPort       uint16    `json:"last_port"`
	AllocatedAt    time.Time `json:"allocated_at"`
	ReleasedAt     time.Time `json:"released_at"`
}

// pastAnswer is an answer of the history.
type pastAnswer struct {
	Verdict, Cause string
	Record         pastRecord
}

// past returns the records of a user.
func (w *world) past(user string) (list []pastRecord, err error) {
	out, err := w.Daemon.Ctl(w.ctx, "history", "list", user, "-o", "json")
	for line := range strings.Lines(out) {
		var r pastRecord
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		list = append(list, r)
	}
	return list, err
}

// hadIt returns who had a port at a time, by the history: a name, "nobody, last NAME", or a cause.
func (w *world) hadIt(outside string, port uint16, at time.Time) string {
	w.t.Helper()
	out, _ := w.Daemon.Ctl(w.ctx, "binding", "lookup", fmt.Sprintf("%s:%d", outside, port), "--at", at.Format(time.RFC3339Nano), "-o", "json") // exit code 1 for nobody
	var a pastAnswer
	line, _, _ := strings.Cut(out, "\n")
	if err := json.Unmarshal([]byte(line), &a); err != nil {
		w.t.Fatalf("%s: %v", out, err)
	}
	switch a.Verdict {
	case "HISTORY_VERDICT_HELD":
		return a.Record.UserName
	case "HISTORY_VERDICT_NOBODY":
		return "nobody, last " + a.Record.UserName
	}
	return a.Cause
}

// TestHistory_LOG06_LOG07_LOG08: subscribers come, grow and leave, while sessiond is killed and Redis
// started again. Then each block of each has one allocation and one release, and the history answers
// for the edges of these times who had a port. A changed octet is found.
func TestHistory_LOG06_LOG07_LOG08(t *testing.T) {
	w := start(t, rig.Options{Lab: sharedAddress, BlockSize: 64, MaxBlocks: 4, PortRange: "1024-1791"})
	folder := filepath.Join(t.TempDir(), "history")
	w.must(w.Daemon.Edit(func(config string) string { return config + fmt.Sprintf("history: {path: %q}\n", folder) }))
	restart := func() {
		t.Helper()
		w.must(w.Daemon.Kill())
		w.must(w.Daemon.Start(w.ctx))
	}
	restart()
	w.must(w.Until(w.ctx, "the history to begin", func() (bool, error) {
		through, err := w.Daemon.Metric(w.ctx, `sessiond_history_through_timestamp_seconds{group="default"}`)
		return err == nil && through != "", nil
	}))
	first, second, third := sessionOf(alice, "a-1"), sessionOf(bob, "b-1"), sessionOf(netip.MustParseAddr("100.64.0.20"), "c-1")
	b := w.online(first)
	echo, err := w.Lab.StartEcho(netip.AddrPortFrom(w.Lab.Remotes[0], 7000))
	w.must(err)
	for port := uint16(5000); port < 5056; port++ {
		_, err := w.Lab.Subscriber.AskUDP(w.ctx, netip.AddrPortFrom(alice, port), echo.Addr())
		w.must(err)
	}
	w.must(w.Until(w.ctx, "alice to have two blocks", func() (bool, error) {
		list, err := w.Bindings(w.ctx, alice)
		return len(list) == 1 && strings.Count(string(list[0].Blocks), "first_port") == 2, err
	}))
	restart()
	other := w.online(second)
	w.must(w.Redis.Kill())
	w.must(w.Redis.Start(w.ctx))
	w.must(w.Daemon.AwaitReady(w.ctx))
	w.must(w.Offline(w.ctx, first))
	restart()
	w.online(third)
	w.must(w.Offline(w.ctx, third))
	w.must(w.Offline(w.ctx, second))

	records := map[string][]pastRecord{}
	for user, blocks := range map[string]int{first.User: 2, second.User: 1, third.User: 1} {
		w.must(w.Until(w.ctx, fmt.Sprintf("the history to have %d blocks of %s", blocks, user), func() (bool, error) {
			list, err := w.past(user)
			records[user] = list
			open := slices.ContainsFunc(list, func(r pastRecord) bool { return r.ReleasedAt.IsZero() })
			return len(list) >= blocks && !open, err
		}))
		if len(records[user]) != blocks {
			t.Errorf("%s has %d records, want %d: %+v", user, len(records[user]), blocks, records[user])
		}
	}
	if r := records[second.User][0]; r.OutsideAddress != other.OutsideAddress || r.FirstPort != other.FirstPort || r.InsideAddress != bob.String() {
		t.Errorf("%+v is not the block of %+v", r, other)
	}
	if !slices.ContainsFunc(records[first.User], func(r pastRecord) bool { return r.OutsideAddress == b.OutsideAddress && r.FirstPort == b.FirstPort }) {
		t.Errorf("the block %+v is not in %+v", b, records[first.User])
	}
	w.must(w.Until(w.ctx, "the history to be read further", func() (bool, error) { // than the last release
		r := records[second.User][0]
		return w.hadIt(r.OutsideAddress, r.FirstPort, r.ReleasedAt) != "HISTORY_CAUSE_NOT_READ", nil
	}))
	const edge = time.Microsecond
	for user, list := range records {
		for _, r := range list {
			for _, port := range []uint16{r.FirstPort, r.LastPort} {
				for _, ask := range []struct {
					at   time.Time
					want string
				}{
					{r.AllocatedAt, user}, {r.ReleasedAt.Add(-edge), user}, {r.ReleasedAt, "nobody, last " + user},
				} {
					if got := w.hadIt(r.OutsideAddress, port, ask.at); got != ask.want {
						t.Errorf("%s:%d at %v: %s, want %s", r.OutsideAddress, port, ask.at, got, ask.want)
					}
				}
				if got := w.hadIt(r.OutsideAddress, port, r.AllocatedAt.Add(-edge)); got == user {
					t.Errorf("%s:%d had %s before %v", r.OutsideAddress, port, user, r.AllocatedAt)
				}
			}
		}
	}

	told, err := w.Daemon.Ctl(w.ctx, "subscriber", "history", first.User)
	w.must(err)
	for _, word := range []string{"bound", "grown", "given back"} {
		if !strings.Contains(told, word) {
			t.Errorf("%q is not in what happened:\n%s", word, told)
		}
	}
	exported, err := w.Daemon.Ctl(w.ctx, "history", "export", "--user", first.User, "--case", "4711", "--reason", "a test", "-o", "csv")
	w.must(err)
	if lines := strings.Count(exported, "4711,"); lines < 2 {
		t.Errorf("%d answers:\n%s", lines, exported)
	}
	audited, err := w.Daemon.Ctl(w.ctx, "audit", "list", "-o", "json")
	w.must(err)
	for _, text := range []string{`"method":"ExportHistory"`, "case 4711", `"method":"SignHistory"`} {
		if !strings.Contains(audited, text) {
			t.Errorf("%q is not in the audit trail:\n%s", text, audited)
		}
	}
	verified, err := w.Daemon.Ctl(w.ctx, "history", "verify")
	if err != nil {
		t.Errorf("%v: %s", err, verified)
	}
	journals, err := filepath.Glob(filepath.Join(folder, "*", "*.journal"))
	if err != nil || len(journals) == 0 {
		t.Fatalf("%v: %v", journals, err)
	}
	data, err := os.ReadFile(journals[0])
	w.must(err)
	data[len(data)/2] ^= 1
	w.must(os.WriteFile(journals[0], data, 0o600))
	if out, err := w.Daemon.Ctl(w.ctx, "history", "verify"); err == nil || !strings.Contains(err.Error()+out, "is not as it was written") {
		t.Errorf("a changed octet was not found: %v: %s", err, out)
	}
}

// TestHistoryCannotBeOpened_LOG07: NAT and RADIUS do not wait for a history that cannot be opened; the alarm and the
// answers say so.
func TestHistoryCannotBeOpened_LOG07(t *testing.T) {
	w := start(t, rig.Options{Memory: true})
	file := filepath.Join(t.TempDir(), "file")
	w.must(os.WriteFile(file, nil, 0o600))
	w.must(w.Daemon.Edit(func(config string) string {
		return config + fmt.Sprintf("history: {path: %q}\n", filepath.Join(file, "history"))
	}))
	w.must(w.Daemon.Kill())
	w.must(w.Daemon.Start(w.ctx))
	b := w.online(sessionOf(alice, "a-1"))
	w.shows("sessiond_history_up", "0")
	port := fmt.Sprintf("%s:%d", b.OutsideAddress, b.FirstPort)
	if out, err := w.Daemon.Ctl(w.ctx, "binding", "lookup", port); err != nil || !strings.Contains(out, alice.String()) {
		t.Errorf("the present holder: %v: %s", err, out)
	}
	if out, err := w.Daemon.Ctl(w.ctx, "binding", "lookup", port, "--at", "2020-01-01T00:00:00Z"); err == nil || !strings.Contains(err.Error(), "history of the NAT cannot be opened") {
		t.Errorf("a holder in the past: %v: %s", err, out)
	}
}
