package main

import (
	"context"
	"strings"
	"testing"

	"github.com/sessiond/sessiond/internal/control/controltest"
	"github.com/sessiond/sessiond/internal/testenv"
)

// TestScreenful: a page is shown in the place of the one before, and its end is left out where the
// terminal has no room for it.
func TestScreenful(t *testing.T) {
	t.Parallel()
	const end = "\x1b[K\r\n"
	more := "(more than the terminal has room for)" + end
	for _, c := range []struct {
		page          string
		columns, rows int
		want          string
	}{
		{"a\nb\n", 10, 5, "a" + end + "b" + end},
		{"a\nb\nc\n", 10, 4, "a" + end + "b" + end + "c" + end},
		{"a\nb\nc\nd\n", 10, 4, "a" + end + "b" + end + more},
		{"a\nb\n12345678901\n", 10, 4, "a" + end + "b" + end + more},
		{"12345678901\nb\nc\n", 10, 4, "12345678901" + end + more},
		{"\x1b[1m1234567890\x1b[0m\nb\nc\n", 10, 4, "\x1b[1m1234567890\x1b[0m" + end + "b" + end + "c" + end},
	} {
		if got := string(screenful(c.page, c.columns, c.rows)); got != "\x1b[H"+c.want+"\x1b[J" {
			t.Errorf("%q: %q", c.page, got)
		}
	}
}

// watched runs a command with --watch until it has printed a text, and returns its output.
func watched(t *testing.T, address string, rows int, until string, change func(), arguments ...string) (result, string) {
	t.Helper()
	var out, errors lockedBuffer
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	code := make(chan int, 1)
	a := sceneApp("", &out, &errors)
	if rows > 0 {
		at(a.stdout, 80, rows)
	}
	go func() { code <- a.run(ctx, append([]string{"--addr", address, "--watch=1s"}, arguments...)) }()
	testenv.Eventually(t, "the first view", func() bool { return strings.Contains(out.String(), "every 1s") })
	change()
	testenv.Eventually(t, until, func() bool { return strings.Contains(out.String(), until) })
	interrupt()
	return result{<-code, out.String(), errors.String()}, out.String()
}

// TestWatchShowsItAnew: at a terminal each view replaces the one before; elsewhere views follow each
// other. A failure in between is shown, and the view comes back.
func TestWatchShowsItAnew(t *testing.T) {
	t.Parallel()
	for _, rows := range []int{0, 24} {
		server := controltest.Serve(t, controltest.Scene(), nil)
		r, out := watched(t, server.Address, rows, "cannot reach sessiond", func() { server.Stop(t) }, "subscriber", "list")
		if r.code != exitDone || r.stderr != "" || !strings.Contains(out, "alice") {
			t.Errorf("%d rows: exit %d, %q: %s", rows, r.code, r.stderr, out)
		}
		if strings.Contains(out, "\x1b[H") != (rows > 0) {
			t.Errorf("%d rows: %q", rows, out)
		}
	}
}

// TestWatchAsksForOneScreen: a list that is shown anew reads no more rows than the terminal has.
func TestWatchAsksForOneScreen(t *testing.T) {
	t.Parallel()
	b := crowd(8000)
	server := controltest.Serve(t, b, nil)
	r, _ := watched(t, server.Address, 24, "more than the terminal", func() {}, "subscriber", "list")
	server.Stop(t)
	if views := strings.Count(r.stdout, "every 1s"); r.code != exitDone || b.Pages.Load() > int64(2*(views+1)) { // one page is fetched ahead
		t.Errorf("exit %d, %d pages for %d views", r.code, b.Pages.Load(), views)
	}
}

// TestWatchEndsWithTheFirstFailure: a wrong address, or a refused request, is no view.
func TestWatchEndsWithTheFirstFailure(t *testing.T) {
	t.Parallel()
	if r := ctl(t, "127.0.0.1:1", "", "status", "--watch"); r.code != exitUnreachable {
		t.Errorf("exit %d: %s", r.code, r.stderr)
	}
}
