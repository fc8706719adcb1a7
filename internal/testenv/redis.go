package testenv

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/clock"
)

// A RedisServer is a real Redis for one test, which listens on a unix socket.
type RedisServer struct {
	Socket string // unix socket path
	URL    string // for redis.ParseURL
	Dir    string // its working directory, with the append-only file if any

	args []string
	cmd  *exec.Cmd
	out  bytes.Buffer
}

// StartRedis starts a redis-server until the test ends. The arguments go to
// redis-server, such as "--appendonly", "yes".
func StartRedis(t testing.TB, args ...string) *RedisServer {
	t.Helper()
	Require(t, Redis)
	dir := t.TempDir()
	socket := filepath.Join(dir, "r.sock")
	s := &RedisServer{Socket: socket, URL: "unix://" + socket, Dir: dir}
	s.args = append([]string{"--port", "0", "--unixsocket", socket, "--dir", dir, "--save", ""}, args...)
	s.Start(t)
	t.Cleanup(s.Kill)
	return s
}

// Start starts the server again after Kill, on the same socket and directory.
func (s *RedisServer) Start(t testing.TB) {
	t.Helper()
	s.cmd = exec.Command("redis-server", s.args...)
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.out
	if err := s.cmd.Start(); err != nil {
		t.Fatalf("start redis-server: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for !s.answers() {
		if clock.Sleep(ctx, 5*time.Millisecond) != nil {
			t.Fatalf("redis-server does not answer: %s", s.out.String())
		}
	}
}

// Kill ends the server with SIGKILL and waits for it.
func (s *RedisServer) Kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	s.cmd = nil
}

// CLI runs redis-cli and returns its output.
func (s *RedisServer) CLI(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "redis-cli", append([]string{"-s", s.Socket}, args...)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("redis-cli %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

// Hang stops the server's answers without closing a connection, until Resume or
// Kill.
func (s *RedisServer) Hang(t testing.TB) { s.signal(t, syscall.SIGSTOP) }

// Resume lets the server answer again, including the requests of the meantime.
func (s *RedisServer) Resume(t testing.TB) { s.signal(t, syscall.SIGCONT) }

func (s *RedisServer) signal(t testing.TB, what syscall.Signal) {
	t.Helper()
	if err := s.cmd.Process.Signal(what); err != nil {
		t.Fatal(err)
	}
}

// Printed reports whether the server has printed the text since its first
// start. The server must have been killed.
func (s *RedisServer) Printed(text string) bool { return bytes.Contains(s.out.Bytes(), []byte(text)) }

func (s *RedisServer) answers() bool {
	c, err := net.Dial("unix", s.Socket)
	if err != nil {
		return false
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Second))
	if _, err := c.Write([]byte("PING\r\n")); err != nil {
		return false
	}
	buf := make([]byte, 16)
	n, err := c.Read(buf)
	return err == nil && bytes.HasPrefix(buf[:n], []byte("+PONG"))
}
