package main

import (
	"context"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/sessiond/sessiond/internal/control"
	"github.com/sessiond/sessiond/internal/control/controltest"
	"github.com/sessiond/sessiond/internal/testenv"
)

// eachCommand calls f for each command of the program's own.
func eachCommand(f func(*cobra.Command)) {
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Name() == "completion" || c.Name() == "help" {
			return // cobra's
		}
		f(c)
		for _, below := range c.Commands() {
			walk(below)
		}
	}
	walk(newApp(strings.NewReader(""), io.Discard, io.Discard).root())
}

func TestHelpIsNarrow(t *testing.T) {
	t.Parallel()
	eachCommand(func(c *cobra.Command) {
		r := ctl(t, "127.0.0.1:1", "", append(strings.Fields(c.CommandPath())[1:], "--help")...)
		if r.code != exitDone {
			t.Errorf("%s: exit %d", c.CommandPath(), r.code)
		}
		for line := range strings.Lines(r.stdout) {
			if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 80 {
				t.Errorf("%s: %d columns: %s", c.CommandPath(), n, line)
			}
		}
	})
}

// TestExamplesWork runs each example of the help, which each command has, against a server.
func TestExamplesWork(t *testing.T) {
	t.Parallel()
	examples := 0
	eachCommand(func(c *cobra.Command) {
		if c.HasSubCommands() {
			return
		}
		if c.Example == "" {
			t.Errorf("%s has no example", c.CommandPath())
		}
		if c.Name() == "doctor" { // it needs no server: system.TestDoctor
			return
		}
		for line := range strings.Lines(c.Example) {
			examples++
			line, _, _ = strings.Cut(strings.TrimSpace(line), " |") // without the program behind it
			if code, stderr := runExample(t, strings.Fields(line)[1:]); code != exitDone {
				t.Errorf("%s: exit %d: %s", line, code, stderr)
			}
		}
	})
	if examples < 30 {
		t.Errorf("%d examples", examples)
	}
}

// runExample runs a command with an answer to its question. One that goes on for ever is
// interrupted when it watches, or has shown its first view.
func runExample(t *testing.T, arguments []string) (code int, stderr string) {
	t.Helper()
	backend, past := controltest.Scene(), controltest.History(t)
	server := controltest.Serve(t, backend, func(o *control.Options) { o.History = func() (control.History, error) { return past, nil } })
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	var out, errors lockedBuffer
	a := newApp(strings.NewReader("y\n"), &out, &errors)
	a.terminal = func() bool { return true }
	done := make(chan int, 1)
	go func() { done <- a.run(ctx, append([]string{"--addr", server.Address}, arguments...)) }()
	switch line := strings.Join(arguments, " "); {
	case arguments[0] == "watch":
		testenv.Eventually(t, "a watch", backend.Watched)
		interrupt()
	case strings.Contains(line, "--watch"):
		testenv.Eventually(t, "a view", func() bool { return out.String() != "" })
		interrupt()
	}
	return <-done, errors.String()
}
