package system

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"layeh.com/radius/rfc2866"

	"github.com/sessiond/sessiond/internal/rig"
)

// copied returns the methods and reasons in a copy of the audit trail.
func copied(path string) ([]string, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var told []string
	for line := range strings.Lines(string(text)) {
		var x struct {
			Entry struct{ Method, Outcome, Reason string }
		}
		if err := json.Unmarshal([]byte(line), &x); err != nil {
			return nil, err
		}
		told = append(told, x.Entry.Method+" "+x.Entry.Outcome+" "+x.Entry.Reason)
	}
	return told, err
}

// TestOrdersAreAudited: a change by sessionctl is in the audit trail and in its copy, with who
// and why; a request that comes again after a kill changes nothing twice; where the trail
// cannot be written, callers change nothing, and all else goes on.
func TestOrdersAreAudited(t *testing.T) {
	w := start(t, rig.Options{Memory: true})
	file := filepath.Join(w.Dir, "audit.json")
	w.must(w.Daemon.Edit(func(config string) string { return config + "audit: {file: " + file + "}\n" }))
	_, err := w.Daemon.Stop()
	w.must(err)
	w.must(w.Daemon.Start(w.ctx))
	awaitCopy := func(path string, want ...string) {
		t.Helper()
		w.must(w.Until(w.ctx, fmt.Sprint("the copy to be ", want), func() (bool, error) {
			told, err := copied(path)
			return fmt.Sprint(told) == fmt.Sprint(want), err
		}))
	}

	w.online(sessionOf(alice, "a-1"))
	w.online(sessionOf(bob, "b-1"))
	if out := w.ctl("subscriber", "delete", alice.String(), "--validate-only"); !strings.Contains(out, "it would delete 1 subscriber and end 0 NAT sessions") {
		t.Errorf("validate: %q", out)
	}
	w.ctl("subscriber", "delete", alice.String(), "--yes", "--reason", "ticket 7")
	list := w.ctl("audit", "list")
	if !strings.Contains(list, "default/1  user:0  DeleteSubscribers  default  1      done     ticket 7  "+alice.String()) || strings.Count(list, "\n") != 2 {
		t.Errorf("audit list:\n%s", list)
	}
	awaitCopy(file, "DeleteSubscribers DONE ticket 7")

	add := []string{"pool", "add", "203.0.113.0/28", "--request-id", "r1", "--reason", "more room"}
	first := w.ctl(add...)
	w.must(os.Rename(file, file+".1"))
	w.Daemon.Kill()
	w.must(w.Daemon.Start(w.ctx))
	if again := w.ctl(add...); again != first {
		t.Errorf("a request that came again: %q, first %q", again, first)
	}
	if out, err := w.Daemon.Ctl(w.ctx, "pool", "add", "203.0.113.16/28", "--request-id", "r1"); err == nil || !strings.Contains(err.Error(), "request_id") {
		t.Errorf("another request with its name: %q, %v", out, err)
	}
	w.ctl("reconcile", "--reason", "look")
	whole := []string{"AddPool DONE more room", "Reconcile ORDERED look", "Reconcile DONE look"}
	w.must(w.Until(w.ctx, "the copies to have all", func() (bool, error) {
		before, err := copied(file + ".1")
		after, errAfter := copied(file)
		told := fmt.Sprint(append(before, after...))
		complete := true
		for _, want := range whole {
			complete = complete && strings.Count(told, want) == 1
		}
		return complete, errors.Join(err, errAfter)
	}))

	const trail = "sessiond:{default}:audit"
	w.redis("RENAME", trail, "kept:{default}")
	w.redis("SET", trail, "x")
	out, err := w.Daemon.Ctl(w.ctx, "subscriber", "delete", bob.String(), "--yes")
	if err == nil || !strings.Contains(err.Error(), trail) || !strings.Contains(err.Error(), "its change is not made") {
		t.Errorf("delete without a trail: %q, %v", out, err)
	}
	w.must(w.Report(w.ctx, rfc2866.AcctStatusType_Value_InterimUpdate, sessionOf(bob, "b-1")))
	if b, err := w.AwaitState(w.ctx, bob, "ACTIVE"); err != nil {
		t.Errorf("bob: %+v, %v", b, err)
	}
	w.redis("DEL", trail)
	w.redis("RENAME", "kept:{default}", trail)
	w.ctl("subscriber", "delete", bob.String(), "--yes")
	if out := w.ctl("audit", "verify"); strings.Count(out, "  none\n") != 2 {
		t.Errorf("audit verify:\n%s", out)
	}
	w.redis("XTRIM", trail, "MAXLEN", "1")
	if out, err := w.Daemon.Ctl(w.ctx, "audit", "verify"); err == nil || !strings.Contains(err.Error(), "entry default/1 of the audit trail is not as it was written: missing") {
		t.Errorf("a cut trail is verified: %q, %v", out, err)
	}
}
