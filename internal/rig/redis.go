package rig

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Redis is a real Redis with an append-only file.
type Redis struct {
	Socket string

	dir  string
	args []string
	out  *output
	run  *process
}

func newRedis(dir string, args []string) *Redis {
	socket := filepath.Join(dir, "redis.sock")
	return &Redis{Socket: socket, dir: dir, args: append([]string{
		"--port", "0", "--unixsocket", socket, "--dir", dir, "--save", "", "--appendonly", "yes",
	}, args...)}
}

// Start starts Redis, again after Kill, and waits until it answers.
func (r *Redis) Start(ctx context.Context) (err error) {
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return err
	}
	r.out = newOutput()
	cmd := exec.Command("redis-server", r.args...)
	cmd.Stdout, cmd.Stderr = r.out, r.out
	if r.run, err = startProcess(cmd); err != nil {
		return err
	}
	return until(ctx, "redis-server to answer", func() (bool, error) {
		c, err := net.Dial("unix", r.Socket)
		if err != nil {
			return false, nil
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Second))
		_, _ = c.Write([]byte("PING\r\n"))
		buf := make([]byte, 5)
		n, _ := c.Read(buf)
		return string(buf[:n]) == "+PONG", nil
	})
}

// PID is the process id of the redis-server that was started last.
func (r *Redis) PID() int { return r.run.cmd.Process.Pid }

// Kill ends Redis like a crash.
func (r *Redis) Kill() error { return r.run.end(syscall.SIGKILL) }

// Stop ends Redis like its administrator.
func (r *Redis) Stop() error { return r.run.end(syscall.SIGTERM) }

// Hang stops Redis's answers without closing a connection, until Resume or
// Kill.
func (r *Redis) Hang() error { return r.run.cmd.Process.Signal(syscall.SIGSTOP) }

// Resume lets Redis answer again, including the requests of the meantime.
func (r *Redis) Resume() error { return r.run.cmd.Process.Signal(syscall.SIGCONT) }

// Copy copies Redis's stored data. The directory must not exist.
func (r *Redis) Copy(dir string) error {
	return os.CopyFS(dir, os.DirFS(filepath.Join(r.dir, "appendonlydir")))
}

// PutBack replaces the stored data of a killed Redis with a copy.
func (r *Redis) PutBack(dir string) error {
	if err := r.Empty(); err != nil {
		return err
	}
	return os.CopyFS(filepath.Join(r.dir, "appendonlydir"), os.DirFS(dir))
}

// Empty removes the stored data of a killed Redis.
func (r *Redis) Empty() error { return os.RemoveAll(r.dir) }

// CLI runs redis-cli and returns its output.
func (r *Redis) CLI(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "redis-cli", append([]string{"-s", r.Socket}, args...)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("redis-cli %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), nil
}
