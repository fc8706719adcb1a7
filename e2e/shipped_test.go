//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestShippedCompose runs docker-compose.yml as it is: the container becomes healthy, accounting
// is published, and a subscriber gets a binding.
func TestShippedCompose(t *testing.T) {
	project := os.Getenv("E2E_PROJECT") + "-shipped"
	words := strings.Fields(os.Getenv("E2E_COMPOSE_COMMAND"))
	if len(words) == 0 {
		t.Fatal("no E2E_COMPOSE_COMMAND: run these tests by e2e/run.sh")
	}
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(words[0], append(append(words[1:], "-p", project, "-f", "docker-compose.yml"), args...)...)
		cmd.Dir = ".."
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	run("up", "-d", "--build")
	t.Cleanup(func() { run("down", "--volumes", "--rmi", "local", "--timeout", "5") })
	t.Setenv("E2E_PROJECT", project)
	if err := (*stack)(nil).awaitHealthy("sessiond", time.Minute); err != nil {
		t.Fatal(err)
	}

	if at := run("port", "--protocol", "udp", "sessiond", "1813"); at == "" {
		t.Error("accounting is not published")
	}
	ctl := func(args ...string) (string, error) {
		id, err := containerOf("sessiond")
		if err != nil {
			return "", err
		}
		return docker(append([]string{"exec", id, "/usr/bin/sessionctl"}, args...)...)
	}
	if _, err := ctl("subscriber", "put", "100.64.0.10", "--user", "carol"); err != nil {
		t.Fatal(err)
	}
	err := eventually(bound, func() error {
		got, err := ctl("binding", "list", "-o", "csv")
		if err == nil && !strings.Contains(got, "carol") {
			err = fmt.Errorf("no binding of carol: %s", got)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
