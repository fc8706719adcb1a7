package main

import (
	"bufio"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// asProgram in the environment makes the test binary run as the program.
const asProgram = "SESSIOND_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

// TestOutlivesTheReaderOfItsLog: the program continues, and ends in order,
// after the reader of its log has ended.
func TestOutlivesTheReaderOfItsLog(t *testing.T) {
	program, log := startProgram(t)
	read, _ := readUntil(log, "msg=ready")
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	if err := program.Process.Signal(syscall.SIGTERM); err != nil { // it says that it stops
		t.Fatal(err)
	}
	if err := program.Wait(); err != nil {
		t.Errorf("%v, behind the log\n%s", err, strings.Join(read, "\n"))
	}
}

// TestReaderOfItsLogStalls_I10: the program goes on, and ends in order, while the reader of
// its log takes nothing and does not end, like a service that hangs.
func TestReaderOfItsLogStalls_I10(t *testing.T) {
	program, log := startProgram(t)
	defer log.Close()
	if _, err := unix.FcntlInt(log.Fd(), unix.F_SETPIPE_SZ, 4096); err != nil {
		t.Fatal(err)
	}
	read, _ := readUntil(log, "msg=ready")
	address := ""
	for _, line := range read {
		if _, after, ok := strings.Cut(line, "service=http address="); ok {
			address = after
		}
	}
	reloaded := func() string {
		t.Helper()
		resp, err := http.Get("http://" + address + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
			if strings.HasPrefix(lines.Text(), "sessiond_config_last_reload_timestamp_seconds ") {
				return lines.Text()
			}
		}
		t.Fatal("no time of a reload")
		return ""
	}
	for i := range 60 { // each logs more than an eightieth of the pipe's capacity
		before := reloaded()
		if err := program.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(10 * time.Second); reloaded() == before; {
			if time.Now().After(deadline) {
				t.Fatalf("it stands still at reload %d", i)
			}
		}
	}
	if err := program.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := program.Wait(); err != nil {
		t.Error(err)
	}
}

// readUntil reads lines of a log to one that has the text in it.
func readUntil(log io.Reader, text string) (read []string, found bool) {
	for lines := bufio.NewScanner(log); lines.Scan(); {
		read = append(read, lines.Text())
		if strings.Contains(lines.Text(), text) {
			return read, true
		}
	}
	return read, false
}

// startProgram starts the program without a kernel and a database, and returns its log.
func startProgram(t *testing.T) (*exec.Cmd, *os.File) {
	t.Helper()
	return startCommand(t, exec.CommandContext(t.Context(), os.Args[0], "--config", smallConfig(t)))
}

// smallConfig writes a configuration without a kernel and a database.
func smallConfig(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "sessiond.yaml")
	if err := os.WriteFile(file, []byte(`redis: {url: embedded}
radius:
  listen: ["127.0.0.1:0"]
  clients: [{name: bng1, prefix: 127.0.0.1/32, secret: testing123}]
grpc: {listen: "127.0.0.1:0"}
http: {listen: "127.0.0.1:0"}
nat: {backend: memory}
groups: [{name: default, inside: [100.64.0.0/24], outside: [198.51.100.0/30]}]
`), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// startCommand starts a command that runs the program, and returns its log.
func startCommand(t *testing.T, program *exec.Cmd) (*exec.Cmd, *os.File) {
	t.Helper()
	program.Env = append(append(os.Environ(), program.Env...), asProgram+"=1")
	log, stderr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	program.Stderr = stderr
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	if err := stderr.Close(); err != nil {
		t.Fatal(err)
	}
	return program, log
}
