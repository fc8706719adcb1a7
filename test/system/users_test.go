package system

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sessiond/sessiond/internal/rig"
	"github.com/sessiond/sessiond/internal/testenv"
)

// TestAnotherUserMayNotEndSubscribers: any user of the machine may read over loopback TCP,
// and none may end subscribers there; a member of the unix socket's group may do all over the
// socket, and with roles, which a reload puts in force, that of its group.
func TestAnotherUserMayNotEndSubscribers(t *testing.T) {
	testenv.Require(t, testenv.Root)
	w := start(t, rig.Options{Memory: true})
	w.must(w.Daemon.Edit(func(config string) string {
		before, after, _ := strings.Cut(config, `grpc: {listen: "`)
		socket, rest, _ := strings.Cut(after, `"`)
		return before + `grpc: {listen: "127.0.0.1:0", socket: "` + strings.TrimPrefix(socket, "unix:") + `", socket_group: "65533"` + rest
	}))
	_, err := w.Daemon.Stop()
	w.must(err)
	w.must(w.Daemon.Start(w.ctx))
	w.online(sessionOf(alice, "a-1"))
	w.online(sessionOf(bob, "b-1"))
	w.must(os.Chmod(w.Dir, 0o755))
	address := w.address("grpc")
	socket := "unix:" + filepath.Join(w.Dir, "grpc.sock")

	stranger := user{65534, 65534}
	if out, err := w.ctlAs(stranger, "--addr", address, "subscriber", "list"); err != nil || !strings.Contains(out, alice.String()) {
		t.Errorf("a stranger sees %q, %v", out, err)
	}
	out, err := w.ctlAs(stranger, "--addr", address, "subscriber", "delete", "--yes", alice.String())
	if err == nil || !strings.Contains(out, "user:65534 may only read here, and DeleteSubscribers needs role operator; call over "+socket) {
		t.Errorf("a stranger deletes over TCP: %q, %v", out, err)
	}
	if out, err := w.ctlAs(stranger, "--addr", socket, "subscriber", "delete", "--yes", alice.String()); err == nil {
		t.Errorf("a stranger deletes over the socket: %q", out)
	}
	_, err = w.AwaitState(w.ctx, alice, "ACTIVE")
	w.must(err)

	if out, err := w.ctlAs(user{65534, 65533}, "--addr", socket, "subscriber", "delete", "--yes", alice.String()); err != nil {
		t.Errorf("one of the socket's group: %q, %v", out, err)
	}
	_, err = w.AwaitState(w.ctx, alice, "HELD")
	w.must(err)
	if out, err := w.ctlAs(user{0, 0}, "--addr", address, "subscriber", "delete", "--yes", bob.String()); err == nil || !strings.Contains(out, "user:0 may only read here") {
		t.Errorf("root over TCP: %q, %v", out, err)
	}

	taken, err := w.Daemon.Reload(w.ctx, func(config string) string {
		return strings.Replace(config, "grpc: {", `grpc: {roles: [{unix_group: "65533", role: operator}], `, 1)
	})
	if w.must(err); !taken {
		t.Fatal("roles are not taken")
	}
	operator := user{65534, 65533}
	if out, err := w.ctlAs(operator, "--addr", socket, "settings", "set", "subscriber_session_removal=off", "--yes"); err == nil || !strings.Contains(out, "UpdateSettings needs role admin") {
		t.Errorf("an operator changes settings: %q, %v", out, err)
	}
	if out, err := w.ctlAs(operator, "--addr", socket, "subscriber", "delete", "--yes", bob.String()); err != nil {
		t.Errorf("an operator: %q, %v", out, err)
	}
	_, err = w.AwaitState(w.ctx, bob, "HELD")
	w.must(err)
	if out, err := w.ctlAs(user{0, 0}, "--addr", socket, "settings", "set", "subscriber_session_removal=on", "--yes"); err != nil {
		t.Errorf("root at the socket: %q, %v", out, err)
	}
}

// address returns the listening address of a service of the daemon, the first of several.
func (w *world) address(service string) string {
	w.t.Helper()
	for line := range strings.Lines(w.Daemon.Log()) {
		if _, after, ok := strings.Cut(line, `"service":"`+service+`","address":"`); ok {
			address, _, _ := strings.Cut(after, `"`)
			return address
		}
	}
	w.t.Fatalf("nothing listens for %s", service)
	return ""
}

type user struct{ uid, gid uint32 }

// ctlAs runs sessionctl as a user, and returns its whole output.
func (w *world) ctlAs(u user, args ...string) (string, error) {
	w.t.Helper()
	program := filepath.Join(w.Dir, "sessionctl")
	if _, err := os.Stat(program); err != nil { // in a place where other users may run it
		data, err := os.ReadFile(programs.Sessionctl)
		w.must(err)
		w.must(os.WriteFile(program, data, 0o755))
	}
	ctx, cancel := context.WithCancel(w.ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: u.uid, Gid: u.gid}}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}
