package main

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
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
	program := exec.CommandContext(t.Context(), os.Args[0], "--config", file)
	program.Env = append(os.Environ(), asProgram+"=1")
	log, stderr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	program.Stderr = stderr
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	if err := stderr.Close(); err != nil {
		t.Fatal(err)
	}
	var read []string
	for lines := bufio.NewScanner(log); lines.Scan(); {
		read = append(read, lines.Text())
		if strings.Contains(lines.Text(), "msg=ready") {
			break
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	if err := program.Process.Signal(syscall.SIGTERM); err != nil { // it logs the stop
		t.Fatal(err)
	}
	if err := program.Wait(); err != nil {
		t.Errorf("%v, behind the log\n%s", err, strings.Join(read, "\n"))
	}
}
