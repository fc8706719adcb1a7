//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestReloadSeesTheEditedFile: an editor replaces the file by a new one, and SIGHUP makes
// sessiond read that.
func TestReloadSeesTheEditedFile(t *testing.T) {
	newStack(t)
	id, err := container("sessiond")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(os.Getenv("E2E_CONFIG"), "sessiond.yaml")
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const clients = "  clients:\n"
	edited := strings.Replace(string(before), clients,
		clients+"    - {name: another, prefix: 203.0.113.77/32, secret: another-secret}\n", 1)
	reload(t, id, file, edited, "reloaded radius_clients=2 ")
	reload(t, id, file, string(before), "reloaded radius_clients=1 ")
}

// reload edits the configuration and waits for the log to confirm it.
func reload(t *testing.T, id, file, text, line string) {
	t.Helper()
	told := func() int {
		log, err := docker("logs", id)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(log, line)
	}
	before := told()
	if err := os.WriteFile(file+".new", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
	if _, err := docker("kill", "-s", "HUP", id); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, func() error {
		if told() == before {
			return fmt.Errorf("the log does not say %q", line)
		}
		return nil
	})
}

// TestHealthIsReadiness: the container is unhealthy while sessiond runs and is not ready,
// and healthy again when it is.
func TestHealthIsReadiness(t *testing.T) {
	newStack(t)
	redis, err := container("redis")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := docker("pause", redis); err != nil {
		t.Fatal(err)
	}
	paused := true
	resume := func() {
		if !paused {
			return
		}
		paused = false
		if _, err := docker("unpause", redis); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(resume)
	eventually(t, 90*time.Second, func() error {
		if pid, err := running("sessiond"); err == nil {
			return fmt.Errorf("sessiond (pid %d) is healthy without Redis", pid)
		} else if !strings.Contains(err.Error(), "unhealthy") {
			return err
		}
		return nil
	})
	resume()
	eventually(t, 60*time.Second, func() error {
		_, err := running("sessiond")
		return err
	})
}
