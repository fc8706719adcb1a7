package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/audit"
	"github.com/sessiond/sessiond/internal/control"
	"github.com/sessiond/sessiond/internal/control/controltest"
	"github.com/sessiond/sessiond/internal/history"
)

// servePast serves a scene with a history of five days.
func servePast(t *testing.T) (address string, h *controltest.Past) {
	t.Helper()
	h = controltest.History(t)
	s := controltest.Serve(t, controltest.Scene(), func(o *control.Options) { o.History = func() (control.History, error) { return h, nil } })
	return s.Address, h
}

// TestPast: the commands about the past show what the history says, and tell by their exit code whether it
// names a holder.
func TestPast(t *testing.T) {
	t.Parallel()
	address, h := servePast(t)
	for _, c := range []struct {
		line string
		code int
		has  []string
	}{
		{"binding lookup 198.51.100.9:5000 --at -2d", 0, []string{"held", "frank", "100.64.1.6", "5000-5063", "not until 2026-03-01 11:59:59 +0000"}},
		{"binding lookup 198.51.100.9:5000 --at 2026-02-26T13:00:00Z", 1, []string{"nobody", "Last user", "erin", "2026-02-26 13:00:00 +0000", "nobody had the port at that time"}},
		{"binding lookup 198.51.100.9:7000 --at 2026-02-28T12:30:00Z", 1, []string{"unknown: from 2026-02-28", "a test", "it is not known who had the port"}},
		{"binding lookup 198.51.100.9:5000 --at 2020-01-01T00:00:00Z", 1, []string{"unknown: the history begins at 2026-02-24"}},
		{"binding lookup 198.51.100.9 --at -2d", 0, []string{"frank", "erin", "5064-5127"}},
		{"binding lookup 198.51.100.9 --at 2026-02-28T12:30:00Z", 1, []string{"frank", "there may be others"}},
		{"binding lookup 198.51.100.9", 2, []string{"binding list --outside 198.51.100.9"}},
		{"history list erin", 0, []string{"5064-5127", "5000-5063", "Unknown in group default from 2026-02-28 12:00:00 +0000", "known from 2026-02-24"}},
		{"history list nobody", 0, []string{"no such record"}},
		{"history export --user erin --case 4711 --reason court", 0, []string{"held", "unknown", "5064-5127"}},
		{"history export --user erin --case 4711", 2, []string{"reason"}},
		{"history verify", 0, []string{"default", "none", "Public key: " + h.Key}},
		{"history erase erin --reason r --validate-only", 0, []string{"nothing was changed"}},
		{"history erase erin --reason r", 1, []string{"--yes"}},
		{"subscriber history erin", 0, []string{"What happened", "bound", "given back", "5064-5127", "Not shown"}},
		{"subscriber history --nas bng1.example", 0, []string{"All ends since"}},
	} {
		r := ctl(t, address, "", strings.Fields(c.line)...)
		if r.code != c.code {
			t.Errorf("%s: exit code %d: %s%s", c.line, r.code, r.stdout, r.stderr)
		}
		for _, text := range c.has {
			if !strings.Contains(r.stdout+r.stderr, text) {
				t.Errorf("%s: no %q in:\n%s%s", c.line, text, r.stdout, r.stderr)
			}
		}
	}
	if r := ctl(t, address, "", "subscriber", "history", "--nas", "bng1.example"); strings.Contains(r.stdout, "What happened") {
		t.Errorf("a list has the steps of one subscriber:\n%s", r.stdout)
	}
}

// TestProofsOffline: proofs in each form of output are checked without a daemon; a changed one is refused.
func TestProofsOffline(t *testing.T) {
	t.Parallel()
	address, h := servePast(t)
	folder := t.TempDir()
	key := filepath.Join(folder, "key")
	if err := os.WriteFile(key, []byte(h.Key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		line []string
		want int // proofs
	}{
		"a lookup":         {[]string{"binding", "lookup", "198.51.100.9:5000", "--at", "-2d", "--proof"}, 1},
		"a lookup as JSON": {[]string{"binding", "lookup", "198.51.100.9:5000", "--at", "-2d", "--proof", "-o", "json"}, 1},
		"a lookup as CSV":  {[]string{"binding", "lookup", "198.51.100.9:5000", "--at", "-2d", "--proof", "-o", "csv"}, 1},
		"an export":        {[]string{"history", "export", "--user", "erin", "--case", "1", "--reason", "r", "-o", "json"}, 2},
		"an export as CSV": {[]string{"history", "export", "--user", "erin", "--case", "1", "--reason", "r", "-o", "csv"}, 2},
	} {
		r := ctl(t, address, "", c.line...)
		if r.code != 0 {
			t.Fatalf("%s: %+v", name, r)
		}
		file := filepath.Join(folder, strings.ReplaceAll(name, " ", "-"))
		if err := os.WriteFile(file, []byte(r.stdout), 0o600); err != nil {
			t.Fatal(err)
		}
		got := ctl(t, "127.0.0.1:1", "", "history", "check-proof", file, "--key", key)
		if got.code != 0 || strings.Count(got.stdout, "proved: 198.51.100.9") != c.want {
			t.Errorf("%s: %+v", name, got)
		}
		forged := strings.ReplaceAll(strings.ReplaceAll(r.stdout, `first_port\":5`, `first_port\":6`), `first_port":5`, `first_port":6`)
		forged = strings.ReplaceAll(forged, `first_port"":5`, `first_port"":6`)
		if forged == r.stdout {
			t.Fatalf("%s: nothing to forge in %s", name, r.stdout)
		}
		if err := os.WriteFile(file, []byte(forged), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := ctl(t, "127.0.0.1:1", "", "history", "check-proof", file, "--key", h.Key); got.code != 1 || !strings.Contains(got.stderr, "it was changed") {
			t.Errorf("%s, forged: %+v", name, got)
		}
	}
	other := controltest.History(t)
	file := filepath.Join(folder, "a-lookup")
	r := ctl(t, address, "", "binding", "lookup", "198.51.100.9:5000", "--at", "-2d", "--proof")
	if err := os.WriteFile(file, []byte(r.stdout), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := ctl(t, "127.0.0.1:1", "", "history", "check-proof", file, "--key", other.Key); got.code != 1 {
		t.Errorf("by another key: %+v", got)
	}
	if got := ctl(t, "127.0.0.1:1", "", "history", "check-proof", key, "--key", h.Key); got.code != 1 || !strings.Contains(got.stderr, "there is no proof") {
		t.Errorf("no proof: %+v", got)
	}
}

// TestKnownCheckpoints: a checkpoint in the copy of the audit trail, or in a file of its own, is compared.
func TestKnownCheckpoints(t *testing.T) {
	t.Parallel()
	address, h := servePast(t)
	note, err := h.Checkpoint("default")
	if err != nil {
		t.Fatal(err)
	}
	entry, err := json.Marshal(map[string]any{"hash": "x", "entry": audit.Entry{Method: history.CheckpointMethod, New: note}})
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	for name, text := range map[string]string{
		"note": note, "copy": string(entry) + "\n", "syslog": "Mar  1 12:00:00 cgn1 sessiond[7]: {\"a\": 1}\nMar  1 12:00:00 cgn1 sessiond[7]: " + string(entry) + "\n",
	} {
		file := filepath.Join(folder, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if list := checkpointsIn(text); len(list) != 1 || list[0] != note {
			t.Errorf("%s: %q", name, list)
		}
		if r := ctl(t, address, "", "history", "verify", "--known", file); r.code != 0 {
			t.Errorf("%s: %+v", name, r)
		}
		if r := ctl(t, address, "", "history", "verify", "--known", filepath.Join(folder, "none")); r.code != 2 {
			t.Errorf("no file: %+v", r)
		}
	}
	other, _ := servePast(t) // another history does not have it, and has another key
	if r := ctl(t, other, "", "history", "verify", "--known", filepath.Join(folder, "note")); r.code != 2 || !strings.Contains(r.stderr, "no checkpoint of this history") {
		t.Errorf("of another history: %+v", r)
	}
}

// TestBackup: a backup is a file that was not there, or the output.
func TestBackup(t *testing.T) {
	t.Parallel()
	address, _ := servePast(t)
	file := filepath.Join(t.TempDir(), "h.tar")
	if r := ctl(t, address, "", "history", "backup", file, "--reason", "r"); r.code != 0 || !strings.Contains(r.stderr, "written") {
		t.Fatalf("%+v", r)
	}
	if r := ctl(t, address, "", "history", "backup", file); r.code != 1 {
		t.Errorf("over another file: %+v", r)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if r := ctl(t, address, "", "history", "backup", "-"); r.code != 0 || r.stdout != string(text) {
		t.Errorf("%d octets of output, %d in the file", len(r.stdout), len(text))
	}
}

// TestHappenings: a second block of a binding is a growth; a later one with the same address is not.
func TestHappenings(t *testing.T) {
	t.Parallel()
	at := func(minute int) *timestamppb.Timestamp {
		return timestamppb.New(controltest.Now.Add(time.Duration(minute) * time.Minute))
	}
	record := func(first uint32, from, to int) *pb.HistoryRecord {
		return &pb.HistoryRecord{InsideAddress: "100.64.0.7", OutsideAddress: "198.51.100.9", FirstPort: first, LastPort: first + 63, AllocatedAt: at(from), ReleasedAt: at(to)}
	}
	list := happenings([]*pb.Ending{{
		InsideAddress: "100.64.0.7", StartTime: at(0), EndTime: at(9), Reason: pb.Reason_REASON_STOP, TerminateCause: 1,
		Receipt: &pb.Receipt{CutAt: at(10), ReapedAt: at(11), ReleasedAt: at(12)},
	}}, []*pb.HistoryRecord{record(1024, 1, 12), record(1088, 5, 12), record(1024, 20, 30)})
	var got []string
	for _, h := range list {
		got = append(got, h.event)
	}
	const want = "given back,bound,released,given back,given back,reaped,cut,end,grown,bound,start"
	if strings.Join(got, ",") != want {
		t.Errorf("%v", got)
	}
}
