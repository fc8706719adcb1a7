package docs

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestOldGo: with the Go of Debian 12 in PATH, make says which Go is needed, and how to get it.
// From 1.21 on, Go gets it by itself.
func TestOldGo(t *testing.T) {
	for name, tt := range map[string]struct {
		version   string // printed by the go in PATH; "" for none
		toolchain string
		refused   bool
	}{
		"Debian's":       {"go version go1.19.8 linux/amd64", "", true},
		"gets another":   {"go version go1.21.3 linux/amd64", "", false},
		"may not":        {"go version go1.21.3 linux/amd64", "local", true},
		"is new":         {"go version go1.99.0 linux/amd64", "local", false},
		"is of somebody": {"go version devel go1.27-abc linux/amd64", "local", false},
		"is missing":     {"", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bin := t.TempDir()
			if tt.version != "" {
				fake := "#!/bin/sh\necho '" + tt.version + "'\n"
				if err := os.WriteFile(filepath.Join(bin, "go"), []byte(fake), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			cmd := exec.Command("scripts/check-go.sh", filepath.Join(bin, "go"))
			cmd.Dir, cmd.Env = root, append(os.Environ(), "GOTOOLCHAIN="+tt.toolchain)
			out, err := cmd.CombinedOutput()
			if (err != nil) != tt.refused {
				t.Errorf("%v: %s", err, out)
			}
			if tt.refused && !strings.Contains(string(out), "https://go.dev/dl/") {
				t.Errorf("does not say how to get Go: %s", out)
			}
		})
	}
}

// TestMakeWithOldGo: each target that needs Go asks first.
func TestMakeWithOldGo(t *testing.T) {
	bin := t.TempDir()
	fake := "#!/bin/sh\n[ \"$1\" = version ] || touch \"$0.used\"\necho 'go version go1.19.8 linux/amd64'\n"
	if err := os.WriteFile(filepath.Join(bin, "go"), []byte(fake), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{"build", "demo", "test", "soak", "verify", "bench", "conformance", "e2e", "fuzz", "man", "generate"} {
		cmd := exec.Command("make", target)
		cmd.Dir, cmd.Env = root, append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "is 1.19.8") || !strings.Contains(string(out), "Debian 12") {
			t.Errorf("make %s: %v: %s", target, err, out)
		}
	}
	if _, err := os.Stat(filepath.Join(bin, "go.used")); err == nil {
		t.Error("an old Go was asked for more than its version")
	}
}
