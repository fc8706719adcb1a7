package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/control/controltest"
)

// asProgram in the environment makes the test binary run as the program.
const asProgram = "SESSIONCTL_TEST_AS_PROGRAM"

// openTerminal returns both ends of a terminal of this size: the person's, and the program's.
func openTerminal(t *testing.T, columns, rows uint16) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = person.Close() })
	fd := int(person.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows}); err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = program.Close() })
	return person, program
}

// program is the command as a process of its own.
func program(t *testing.T, arguments ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], arguments...)
	cmd.Env = append(os.Environ(), asProgram+"=1", "TERM=xterm", "NO_COLOR=", "TZ=Europe/Berlin")
	return cmd
}

// TestAtATerminal: at a real terminal the table has its width and colours, and times are local. NO_COLOR,
// a dumb terminal and a pipe have none.
func TestAtATerminal(t *testing.T) {
	t.Parallel()
	server := controltest.Serve(t, controltest.Scene(), nil)
	for _, c := range []struct {
		columns  uint16
		set      string
		narrow   bool
		coloured bool
	}{
		{80, "", true, true}, {200, "", false, true}, {80, "NO_COLOR=1", true, false}, {80, "TERM=dumb", true, false}, {0, "", false, true},
	} {
		person, stdout := openTerminal(t, c.columns, 24)
		cmd := program(t, "--addr", server.Address, "subscriber", "list")
		cmd.Env = append(cmd.Env, c.set)
		var stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = stdout, &stderr
		if err := cmd.Run(); err != nil {
			t.Fatalf("%v: %s", err, stderr.String())
		}
		_ = stdout.Close()
		shown, _ := io.ReadAll(person) // ends with EIO
		if strings.Contains(string(shown), "no room for") != c.narrow || bytes.Contains(shown, []byte("\x1b")) != c.coloured {
			t.Errorf("%d columns, %q: %q", c.columns, c.set, shown)
		}
	}
}

// TestClosedPipe: a reader that has enough ends a list of many rows at once, silently, like other
// programs.
func TestClosedPipe(t *testing.T) {
	t.Parallel()
	server := controltest.Serve(t, crowd(50_000), nil)
	for _, format := range []string{"table", "json", "yaml", "csv"} {
		read, write, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd := program(t, "--addr", server.Address, "-o", format, "subscriber", "list")
		var stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = write, &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		_ = write.Close()
		if _, err := read.Read(make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		_ = read.Close()
		_ = cmd.Wait()
		status := cmd.ProcessState.Sys().(syscall.WaitStatus)
		if !status.Signaled() || status.Signal() != syscall.SIGPIPE || stderr.Len() > 0 {
			t.Errorf("%s: %v, printed %q", format, cmd.ProcessState, stderr.String())
		}
	}
}

// TestLocalTimes: tables have the time of the person's zone, UTC with --utc; formats for programs
// have UTC.
func TestLocalTimes(t *testing.T) {
	t.Parallel()
	server := controltest.Serve(t, controltest.Scene(), nil)
	for line, want := range map[string]string{
		"subscriber get 100.64.0.7":         "2026-02-28T11:00:00+01:00",
		"subscriber get 100.64.0.7 --utc":   "2026-02-28T10:00:00Z",
		"subscriber get 100.64.0.7 -o json": `"started_at":"2026-02-28T10:00:00Z"`,
		"subscriber get 100.64.0.7 -o yaml": `started_at: "2026-02-28T10:00:00Z"`,
	} {
		out, err := program(t, append([]string{"--addr", server.Address}, strings.Fields(line)...)...).Output()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v\n%s", line, err, out)
		}
	}
}

// TestTimesAreWrittenAsShown: a time in an argument is of the zone that tables have.
func TestTimesAreWrittenAsShown(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	b.Leases[0].AllocatedAt = time.Date(2026, 2, 28, 10, 0, 0, 0, time.UTC)
	b.Ended[0].At = b.Leases[0].AllocatedAt
	server := controltest.Serve(t, b, nil)
	lookup := "binding lookup " + netip.AddrPortFrom(b.Leases[0].Outside, uint16(b.Leases[0].Block.First)).String() + " --at "
	history := "subscriber history " + b.Ended[0].Record.UserName
	const held, ended = "Allocated", "100.64."
	for line, want := range map[string]string{
		lookup + "2026-02-28T10:30 --utc": held, lookup + "2026-02-28T10:30": "", lookup + "2026-02-28T11:30": held,
		history + " --from 2026-02-28T10:00 --to 2026-02-28T10:01 --utc": ended, history + " --from 2026-02-28T10:00 --to 2026-02-28T10:01": "",
		history + " --from 2026-02-28T11:00 --to 2026-02-28T11:01": ended,
	} {
		out, _ := program(t, append([]string{"--addr", server.Address}, strings.Fields(line)...)...).CombinedOutput()
		if want == "" && (strings.Contains(string(out), held) || strings.Contains(string(out), ended)) || !strings.Contains(string(out), want) {
			t.Errorf("%s: %q, want %q", line, out, want)
		}
	}
}

// lockedBuffer collects output of several goroutines.
type lockedBuffer struct {
	lock sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.lock.Lock()
	defer b.lock.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.lock.Lock()
	defer b.lock.Unlock()
	return b.text.String()
}

// TestProgress: work that takes long shows that it goes on, in a line that other output replaces.
func TestProgress(t *testing.T) {
	t.Parallel()
	var out lockedBuffer
	now := time.Unix(0, 0)
	p := &progressLine{to: &out, now: func() time.Time { return now }}
	p.show()
	end := p.begin()
	p.show()
	if out.String() != "" {
		t.Errorf("at once: %q", out.String())
	}
	now = now.Add(3 * time.Second)
	p.show()
	p.count(2000)
	p.show()
	p.hide()
	p.hide()
	end()
	p.show()
	if want := "\rwaiting for sessiond, 3s\x1b[K\r2000 rows, 3s\x1b[K\r\x1b[K"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
	now = now.Add(progressGap / 2)
	p.begin()()
	if p.since != time.Unix(0, 0) {
		t.Error("the next page of a list counts as other work")
	}
	p.start()
	p.stop()
}

// TestProgressAtATerminal: a call that takes long is shown on stderr, and nothing of it is left.
func TestProgressAtATerminal(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	person, stderr := openTerminal(t, 80, 24)
	cmd := program(t, "--addr", silent.Addr().String(), "--timeout", "3s", "reconcile")
	cmd.Stderr = stderr
	_ = cmd.Run() // no answer
	_ = stderr.Close()
	shown, _ := io.ReadAll(person)
	if text := string(shown); !strings.Contains(text, "\rwaiting for sessiond, ") || !strings.Contains(text, "\r\x1b[Ksessionctl: ") {
		t.Errorf("%q", text)
	}
}
