package peercred_test

import (
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/peercred"
	"github.com/sessiond/sessiond/internal/testenv"
)

const nobody = 65534

// connect returns the accepted end of a connection that a thread of another
// user, with some groups, has made.
func connect(t *testing.T, network, address string, groups []uint32) net.Conn {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	if network == "unix" {
		if err := os.Chmod(address, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	dialed := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
		_, _, e1 := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&groups[0])), 0)
		_, _, e2 := unix.RawSyscall(unix.SYS_SETRESGID, nobody, nobody, nobody)
		_, _, e3 := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody)
		for _, e := range []unix.Errno{e1, e2, e3} {
			if e != 0 {
				dialed <- e
				return
			}
		}
		c, err := net.Dial(network, l.Addr().String())
		if err == nil {
			t.Cleanup(func() { _ = c.Close() })
		}
		dialed <- err
	}()
	if err := <-dialed; err != nil {
		t.Fatal(err)
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestUnix: the user and all groups, more than fit into the first buffer.
func TestUnix(t *testing.T) {
	testenv.Require(t, testenv.Root)
	t.Parallel()
	folder, err := os.MkdirTemp("", "sessiond-peer-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	if err := os.Chmod(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, many := range []int{1, 64, 65, 300} {
		var groups []uint32
		for i := range many {
			groups = append(groups, uint32(70_000+i))
		}
		path := filepath.Join(folder, "s")
		user, got, err := peercred.Unix(connect(t, "unix", path, groups))
		slices.Sort(got)
		if want := append([]uint32{nobody}, groups...); user != nobody || err != nil || !slices.Equal(got, want) {
			t.Errorf("%d groups: user %d, %d groups, %v", many, user, len(got), err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTCP(t *testing.T) {
	testenv.Require(t, testenv.Root)
	t.Parallel()
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		c := connect(t, "tcp", address, []uint32{nobody})
		if user, err := peercred.TCP(c); user != nobody || err != nil {
			t.Errorf("%s: user %d, %v", address, user, err)
		}
		if _, _, err := peercred.Unix(c); err == nil {
			t.Errorf("%s counts as a unix socket", address)
		}
	}
}
