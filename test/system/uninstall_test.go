package system

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/sessiond/sessiond/internal/rig"
)

// TestUninstall: the script of `sessiond --removal` takes from the kernel all that sessiond leaves
// there, and nothing of others. A second run finds nothing, and is no error.
func TestUninstall(t *testing.T) {
	w := start(t, rig.Options{})
	for _, command := range [][]string{
		{"nft", "add", "table", "ip", "operator"},
		{"ip", "route", "add", "blackhole", "192.0.2.0/24"},
	} {
		_, err := w.Lab.CGN.Output(w.ctx, command[0], command[1:]...)
		w.must(err)
	}
	w.online(sessionOf(alice, "a-1"))
	_, err := w.Daemon.Stop()
	w.must(err)
	if left := ruleset(w, w.Lab.CGN); !strings.Contains(left, "table ip sessiond") || !strings.Contains(left, "blackhole 198.51.100.0/28") || !strings.Contains(left, "pref 93 bpf") {
		t.Fatalf("a stopped sessiond leaves:\n%s", left)
	}
	w.Daemon.Args = []string{"--removal"}
	code, err := w.Daemon.Refuse(w.ctx)
	w.must(err)
	script := w.Daemon.Log()
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, script)
	}
	for range 2 {
		sh := exec.CommandContext(w.ctx, "sh")
		sh.Stdin = strings.NewReader(script)
		if out, err := sh.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s\n%s", err, out, script)
		}
	}
	left := ruleset(w, w.Lab.CGN)
	if strings.Contains(left, "sessiond") || strings.Contains(left, "198.51.100.0/28") || strings.Contains(left, "pref 93") {
		t.Errorf("it left:\n%s", left)
	}
	if !strings.Contains(left, "table ip operator") || !strings.Contains(left, "blackhole 192.0.2.0/24") {
		t.Errorf("the operator's own is gone:\n%s", left)
	}
}
