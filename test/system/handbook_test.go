package system

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/sessiond/sessiond/internal/rig"
	"github.com/sessiond/sessiond/internal/testenv"
)

// shellBlock is a block of commands that TestHandbook runs.
var shellBlock = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")

// TestHandbook runs the commands of README's first hour and of docs/operations.md, in their order,
// where sessiond has alice and bob online. A live flow of alice's passes while sessiond is stopped
// for an upgrade, and after its start.
func TestHandbook(t *testing.T) {
	w := start(t, rig.Options{})
	held := w.online(rig.Session{ID: "a1", User: "alice", Inside: alice})
	w.online(rig.Session{ID: "b1", User: "bob", Inside: bob})
	flow := w.flow(alice)
	places := strings.NewReplacer(
		"/etc/sessiond/sessiond.yaml", filepath.Join(w.Dir, "sessiond.yaml"),
		"/tmp/sessiond-backup.rdb", filepath.Join(w.Dir, "backup.rdb"),
		"198.51.100.3:20480", fmt.Sprintf("%s:%d", held.OutsideAddress, held.FirstPort), // one that is held
	)
	programsDir := w.handbookPrograms()
	commands := 0
	for _, document := range []string{"README.md", "docs/operations.md"} {
		text, err := os.ReadFile(filepath.Join("../..", document))
		w.must(err)
		for _, block := range shellBlock.FindAllStringSubmatch(string(text), -1) {
			commands += strings.Count(block[1], "\n")
			cmd := exec.CommandContext(w.ctx, "ip", "netns", "exec", w.Lab.CGN.Name(), "bash", "-euc", places.Replace(block[1]))
			cmd.Env = append(os.Environ(), "PATH="+programsDir+":"+os.Getenv("PATH"), "SESSIONCTL_ADDR=unix:"+filepath.Join(w.Dir, "grpc.sock"))
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s: %v:\n%s%s", document, err, block[1], out)
			}
		}
	}
	if commands < 30 {
		t.Errorf("%d commands", commands)
	}
	w.passes(flow, "alice, before the upgrade")
	_, err := w.Daemon.Stop()
	w.must(err)
	w.passes(flow, "alice, while sessiond is stopped")
	w.must(w.Daemon.Start(w.ctx))
	w.passes(flow, "alice, after the upgrade")
}

// handbookPrograms returns a directory with the programs that the commands run; redis-cli leads to
// the Redis of the test.
func (w *world) handbookPrograms() string {
	w.t.Helper()
	dir := w.t.TempDir()
	client, err := exec.LookPath("redis-cli")
	w.must(err)
	w.must(os.WriteFile(filepath.Join(dir, "redis-cli"), fmt.Appendf(nil, "#!/bin/sh\nexec %s -s %s \"$@\"\n", client, w.Redis.Socket), 0o755))
	w.must(os.Symlink(programs.Sessiond, filepath.Join(dir, "sessiond")))
	w.must(os.Symlink(programs.Sessionctl, filepath.Join(dir, "sessionctl")))
	return dir
}

// TestHandbookCommandsParse: every command line of sessiond and sessionctl in the documents for
// operators, in text and tables too, is one that the programs know.
func TestHandbookCommandsParse(t *testing.T) {
	testenv.Require(t, testenv.Redis)
	t.Parallel()
	line := regexp.MustCompile("(?m)(?:^ *|`)sessionctl ((?:[a-z]+ ?)+)")
	seen := map[string]bool{}
	for _, document := range []string{"README.md", "docs/operations.md"} {
		text, err := os.ReadFile(filepath.Join("../..", document))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range line.FindAllStringSubmatch(string(text), -1) {
			words := strings.Fields(m[1])
			if len(words) > 2 {
				words = words[:2]
			}
			if command := strings.Join(words, " "); !seen[command] {
				seen[command] = true
				out, err := exec.CommandContext(t.Context(), programs.Sessionctl, append(words, "--help")...).CombinedOutput()
				group := len(words) > 1 && strings.Contains(string(out), "sessionctl "+words[0]+" [command]") // has no such command
				if err != nil || group || !strings.Contains(string(out), "sessionctl "+words[0]) {
					t.Errorf("%s: sessionctl %s: %v: %s", document, command, err, out)
				}
			}
		}
	}
	if len(seen) < 15 {
		t.Errorf("%d commands", len(seen))
	}
}
