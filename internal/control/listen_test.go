package control_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/sessiond/sessiond/internal/control"
	"github.com/sessiond/sessiond/internal/control/controltest"
	"github.com/sessiond/sessiond/internal/testenv"
)

// hold locks a file or folder for the rest of the test.
func hold(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
}

// start makes a server on the socket and ends it. It fails if that takes 15 s.
func start(t *testing.T, socket string) error {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		s, err := control.New(options("unix:" + socket))
		if err == nil {
			ended, end := context.WithCancel(context.Background())
			end()
			err = s.Run(ended)
		}
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-time.After(15 * time.Second):
		t.Fatal("the start waits")
		return nil
	}
}

// TestLockedFolder_I10: a user who may read the socket's folder can lock it,
// which must not delay the start.
func TestLockedFolder_I10(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	hold(t, folder)
	if err := start(t, filepath.Join(folder, "s")); err != nil {
		t.Error(err)
	}
	if left, err := filepath.Glob(filepath.Join(folder, "*.lock")); len(left) > 0 || err != nil {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestLockOfTheSocketIsOurs: a lock file that another user made, or may open,
// is refused at once, with advice, and stays unchanged. The start waits a
// bounded time for one that another daemon holds.
func TestLockOfTheSocketIsOurs(t *testing.T) {
	testenv.Require(t, testenv.Root) // to give a file away
	t.Parallel()
	for name, plant := range map[string]func(lock string) error{
		"of another user": func(lock string) error {
			return errors.Join(os.WriteFile(lock, nil, 0o600), os.Chown(lock, nobody, -1))
		},
		"open to others": func(lock string) error { return errors.Join(os.WriteFile(lock, nil, 0o600), os.Chmod(lock, 0o644)) },
		"a symlink":      func(lock string) error { return os.Symlink("elsewhere", lock) },
		"a fifo":         func(lock string) error { return unix.Mkfifo(lock, 0o600) },
		"a folder":       func(lock string) error { return os.Mkdir(lock, 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			socket := filepath.Join(t.TempDir(), "s")
			if err := plant(socket + ".lock"); err != nil {
				t.Fatal(err)
			}
			if err := start(t, socket); err == nil || !strings.Contains(err.Error(), "remove") {
				t.Errorf("the start: %v", err)
			}
			if _, err := os.Lstat(socket + ".lock"); err != nil {
				t.Error(err)
			}
			if _, err := os.Lstat(filepath.Join(filepath.Dir(socket), "elsewhere")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the target of the symlink: %v", err)
			}
		})
	}
	t.Run("held", func(t *testing.T) {
		t.Parallel()
		socket := filepath.Join(t.TempDir(), "s")
		if err := os.WriteFile(socket+".lock", nil, 0o600); err != nil {
			t.Fatal(err)
		}
		hold(t, socket+".lock")
		if err := start(t, socket); err == nil || !strings.Contains(err.Error(), "another") {
			t.Errorf("the start: %v", err)
		}
	})
}

// TestLockIsLeftByAKilledDaemon: the next daemon uses the file, and removes it.
func TestLockIsLeftByAKilledDaemon(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "s")
	if err := os.WriteFile(socket+".lock", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := start(t, socket); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(socket + ".lock"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the lock file: %v", err)
	}
}

// TestSocketBesideAddress: both serve, the socket without TLS, and each has its
// own limits.
func TestSocketBesideAddress(t *testing.T) {
	t.Parallel()
	certs := controltest.MakeCerts(t)
	socket := filepath.Join(t.TempDir(), "s")
	leaveStaleSocket(t, socket)
	server := controltest.Serve(t, controltest.Scene(), func(o *control.Options) {
		o.Socket, o.TLS = socket, control.TLS{CertFile: certs.Server, KeyFile: certs.ServerKey}
		o.Limits = control.Limits{Connections: 1, Streams: 1}
	})
	remote := dial(t, server.Address, grpc.WithTransportCredentials(clientTLS(t, certs)))
	for _, conn := range []*grpc.ClientConn{remote, dial(t, "unix:"+socket)} {
		if _, err := watch(t.Context(), conn); err != nil {
			t.Errorf("%s: %v", conn.Target(), err)
		}
	}
	if addrs := server.Addrs(); len(addrs) != 2 || addrs[1].String() != socket {
		t.Errorf("listens on %v", addrs)
	}
	o := options("127.0.0.1:0")
	o.Socket = socket
	if _, err := control.New(o); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("the socket of a live server: %v", err)
	}
}
