package main

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/sessiond/sessiond/internal/testenv"
)

// TestManualPage: the page is without a warning of mandoc, and has every command with its flags.
func TestManualPage(t *testing.T) {
	t.Parallel()
	testenv.Require(t, testenv.Mandoc)
	r := ctl(t, "127.0.0.1:1", "", "man", "--date", "2026-11-30")
	if r.code != exitDone {
		t.Fatal(r.stderr)
	}
	lint := exec.Command("mandoc", "-T", "lint", "-W", "warning")
	lint.Stdin = strings.NewReader(r.stdout)
	if out, err := lint.CombinedOutput(); err != nil {
		t.Errorf("mandoc: %v\n%s", err, out)
	}
	eachCommand(func(c *cobra.Command) {
		name := strings.ReplaceAll(strings.TrimPrefix(c.CommandPath(), "sessionctl "), "-", `\-`)
		if !c.HasSubCommands() && !c.Hidden && !strings.Contains(r.stdout, `.SS "`+name+`"`) {
			t.Errorf("no %s", name)
		}
	})
	for _, want := range []string{`\-\-calling\-station\-id`, `\-\-output format`, "SESSIONCTL_ADDR"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("no %s", want)
		}
	}
}
