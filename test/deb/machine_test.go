package deb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/clock"
	"github.com/sessiond/sessiond/internal/netlab"
)

// A machine is a container with systemd, on a Debian root of its own.
type machine struct {
	t      *testing.T
	ctx    context.Context
	root   string
	leader string // process id of its systemd
}

// boot unpacks the root, puts files into its /root, and boots it in a network namespace. The
// machine is powered off at the end of the test.
func boot(t *testing.T, tar string, network *netlab.Namespace, files ...string) *machine {
	t.Helper()
	m := &machine{t: t, ctx: t.Context(), root: t.TempDir()}
	m.host("tar", "-xf", tar, "-C", m.root)
	for _, f := range files {
		m.host("cp", f, filepath.Join(m.root, "root"))
	}
	nspawn := exec.Command("systemd-nspawn", "--quiet", "--boot", "--directory", m.root, "--register=no", "--keep-unit",
		"--capability=all", "--network-namespace-path="+network.Path(), "--", "--show-status=no")
	// A machine of its own has no filter of system calls but its services' own.
	nspawn.Env = append(os.Environ(), "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1", "SYSTEMD_SECCOMP=0")
	var console bytes.Buffer
	nspawn.Stdout, nspawn.Stderr = &console, &console
	nspawn.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := nspawn.Start(); err != nil {
		t.Fatal(err)
	}
	ended, booted := make(chan struct{}), false
	go func() { defer close(ended); _ = nspawn.Wait() }()
	t.Cleanup(func() {
		_ = nspawn.Process.Signal(syscall.SIGTERM) // powers it off
		select {
		case <-ended:
		case <-time.After(time.Minute):
			_ = nspawn.Process.Kill()
			<-ended
		}
		if !booted {
			t.Logf("console:\n%s", console.String())
		}
	})
	m.until("it has booted", func() error {
		select {
		case <-ended:
			return errors.New("systemd-nspawn ended")
		default:
		}
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", nspawn.Process.Pid, nspawn.Process.Pid))
		if err != nil {
			return err
		}
		m.leader = strings.TrimSpace(string(children)) // at first of its predecessors
		out, err := m.try("systemctl is-system-running")
		if state := strings.TrimSpace(out); state == "running" || state == "degraded" {
			return nil
		}
		return fmt.Errorf("%s: %w", out, err)
	})
	booted = true
	// nspawn leaves it read-only where the network is not of its making, unlike a machine's own.
	m.run("mount -o remount,bind,rw /proc/sys && sysctl -qw net.ipv4.ip_forward=0")
	return m
}

// host runs a command outside of the machine.
func (m *machine) host(name string, args ...string) {
	m.t.Helper()
	if out, err := exec.CommandContext(m.ctx, name, args...).CombinedOutput(); err != nil {
		m.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// try runs a shell command in the machine, as root.
func (m *machine) try(command string) (string, error) {
	cmd := exec.CommandContext(m.ctx, "nsenter", "--target", m.leader, "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd",
		"env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive", "sh", "-c", command)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// run is try for a command that has to succeed.
func (m *machine) run(command string) string {
	m.t.Helper()
	out, err := m.try(command)
	if err != nil {
		journal, _ := m.try("journalctl --no-pager -n 60 -u 'sessiond*'")
		m.t.Fatalf("%s: %v\n%s\n%s", command, err, out, journal)
	}
	return strings.TrimSpace(out)
}

// is checks what a command prints.
func (m *machine) is(command, want string) {
	m.t.Helper()
	if got, _ := m.try(command); strings.TrimSpace(got) != want {
		m.t.Errorf("%s: %q, want %q", command, strings.TrimSpace(got), want)
	}
}

// until waits a minute for a condition.
func (m *machine) until(what string, check func() error) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.ctx, time.Minute)
	defer cancel()
	for {
		err := check()
		if err == nil {
			return
		}
		if clock.Sleep(ctx, 100*time.Millisecond) != nil {
			m.t.Fatalf("waited in vain until %s: %v", what, err)
		}
	}
}
