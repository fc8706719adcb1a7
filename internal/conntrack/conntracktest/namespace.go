package conntracktest

import (
	"crypto/rand"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/sessiond/sessiond/internal/netns"
)

// Namespace makes a network namespace with a unique name for the length of the test. It
// returns its name and its path.
func Namespace(t testing.TB) (name, path string) {
	t.Helper()
	name = "sdct-" + strings.ToLower(rand.Text()[:10])
	Command(t, "ip", "netns", "add", name)
	t.Cleanup(func() { Command(t, "ip", "netns", "del", name) })
	return name, netns.Path(name)
}

// In runs a command in a namespace and returns its output.
func In(t testing.TB, name string, command ...string) string {
	t.Helper()
	return Command(t, append([]string{"ip", "netns", "exec", name}, command...)...)
}

// Command runs a command that must succeed and returns its output.
func Command(t testing.TB, command ...string) string {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v: %s", command, err, stderr.String())
	}
	return string(out)
}
