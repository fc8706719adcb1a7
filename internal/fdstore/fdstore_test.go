package fdstore

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/testenv"
)

// manager is a service manager with a store, as systemd is one.
type manager struct {
	path string
	conn *net.UnixConn

	mu     sync.Mutex
	stored map[string]*os.File // by name
}

func newManager(t *testing.T) *manager {
	t.Helper()
	m := &manager{path: filepath.Join(t.TempDir(), "notify"), stored: map[string]*os.File{}}
	var err error
	if m.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); m.serve() }()
	t.Cleanup(func() {
		m.conn.Close()
		<-done
		for _, f := range m.stored {
			f.Close()
		}
	})
	return m
}

func (m *manager) serve() {
	message, rights := make([]byte, 4096), make([]byte, 4096)
	for {
		n, rn, _, _, err := m.conn.ReadMsgUnix(message, rights)
		if err != nil {
			return
		}
		m.handle(string(message[:n]), descriptors(rights[:rn]))
	}
}

func descriptors(rights []byte) (fds []int) {
	messages, _ := unix.ParseSocketControlMessage(rights)
	for i := range messages {
		more, _ := unix.ParseUnixRights(&messages[i])
		fds = append(fds, more...)
	}
	return fds
}

func (m *manager) handle(message string, fds []int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	lines := strings.Split(message, "\n")
	name := ""
	for _, l := range lines {
		if after, ok := strings.CutPrefix(l, "FDNAME="); ok {
			name = after
		}
	}
	switch lines[0] {
	case "FDSTORE=1":
		for _, fd := range fds {
			m.stored[name] = os.NewFile(uintptr(fd), name)
		}
	case "FDSTOREREMOVE=1":
		if f := m.stored[name]; f != nil {
			f.Close()
			delete(m.stored, name)
		}
	case "BARRIER=1":
		for _, fd := range fds {
			unix.Close(fd)
		}
	}
}

// names returns the names of the sockets in the store, once it has heard all before.
func (m *manager) names(t *testing.T, want int) (names []string) {
	t.Helper()
	testenv.Eventually(t, fmt.Sprintf("%d sockets are stored", want), func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		names = nil
		for n := range m.stored {
			names = append(names, n)
		}
		return len(names) == want
	})
	return names
}

// pass returns copies of the stored sockets, as a new process gets them.
func (m *manager) pass(t *testing.T) (files []*os.File) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, f := range m.stored {
		fd, err := unix.Dup(int(f.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, os.NewFile(uintptr(fd), name))
	}
	return files
}

// listen opens a store, and in it the socket of an address.
func listen(t *testing.T, passed []*os.File, notify, address string) (*net.UDPConn, string) {
	t.Helper()
	var log bytes.Buffer
	s := Open(passed, notify, []string{address}, slog.New(slog.NewTextHandler(&log, nil)))
	c, err := s.ListenUDP("udp4", address)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, log.String()
}

func portOf(c *net.UDPConn) uint16 { return netip.MustParseAddrPort(c.LocalAddr().String()).Port() }

// TestSocketIsKept: the process after this one reads what came in between.
func TestSocketIsKept(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	first, log := listen(t, nil, m.path, "127.0.0.1:0")
	if names := m.names(t, 1); names[0] != "radius-127.0.0.1_0" || log != "" {
		t.Fatalf("stored as %q, log %q", names, log)
	}
	address := first.LocalAddr()
	first.Close()
	sender, err := net.Dial("udp4", address.String())
	if err != nil {
		t.Fatal(err)
	}
	defer sender.Close()
	if _, err := sender.Write([]byte("between")); err != nil {
		t.Fatal(err)
	}
	second, _ := listen(t, m.pass(t), m.path, "127.0.0.1:0")
	if second.LocalAddr().String() != address.String() {
		t.Fatalf("%v after %v", second.LocalAddr(), address)
	}
	second.SetReadDeadline(time.Now().Add(5 * time.Second))
	b := make([]byte, 16)
	if n, err := second.Read(b); err != nil || string(b[:n]) != "between" {
		t.Errorf("read %q, %v", b[:n], err)
	}
	m.names(t, 1)
}

// TestUnwantedSocketIsGone: a socket of an address that is not configured any more does not
// keep its port, neither in this process nor in the manager.
func TestUnwantedSocketIsGone(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	first, _ := listen(t, nil, m.path, "0.0.0.0:0")
	m.names(t, 1)
	port := portOf(first)
	first.Close()
	address := fmt.Sprint("127.0.0.1:", port)
	second, log := listen(t, m.pass(t), m.path, address)
	if second.LocalAddr().String() != address || log != "" {
		t.Errorf("%v, want %s; log %q", second.LocalAddr(), address, log)
	}
	if names := m.names(t, 1); names[0] != nameOf(address) {
		t.Errorf("stored: %q", names)
	}
}

// TestNobodyKeeps: without a manager, or with one that is gone, sockets are bound as usual.
func TestNobodyKeeps(t *testing.T) {
	t.Parallel()
	if _, log := listen(t, nil, "", "127.0.0.1:0"); log != "" {
		t.Errorf("without a manager: %s", log)
	}
	if _, log := listen(t, nil, filepath.Join(t.TempDir(), "gone"), "127.0.0.1:0"); !strings.Contains(log, "requests that come during a restart will be lost") {
		t.Errorf("with a manager that is gone: %q", log)
	}
}

// TestFits: only a UDP socket that is bound as its address says is taken over.
func TestFits(t *testing.T) {
	t.Parallel()
	bind := func(network, address string) *os.File {
		t.Helper()
		at, err := net.ResolveUDPAddr(network, address)
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.ListenUDP(network, at)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return fileOf(t, c)
	}
	tcp, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, c := range []struct {
		name    string
		file    *os.File
		address string
		want    bool
	}{
		{"the address", bind("udp4", "127.0.0.1:0"), "127.0.0.1:0", true},
		{"another port", bind("udp4", "127.0.0.1:0"), "127.0.0.1:1", false},
		{"another address", bind("udp4", "127.0.0.1:0"), "127.0.0.2:0", false},
		{"all addresses for one", bind("udp4", "0.0.0.0:0"), "127.0.0.1:0", false},
		{"all addresses of IPv4", bind("udp4", "0.0.0.0:0"), "0.0.0.0:0", true},
		{"one family for both", bind("udp4", "0.0.0.0:0"), ":0", false},
		{"both families", bind("udp", ":0"), ":0", true},
		{"both families for one", bind("udp", ":0"), "[::]:0", false},
		{"all addresses of IPv6", bind("udp6", "[::]:0"), "[::]:0", true},
		{"IPv6 for both families", bind("udp6", "[::]:0"), ":0", false},
		{"an address of IPv6", bind("udp6", "[::1]:0"), "[::1]:0", true},
		{"TCP", fileOf(t, tcp.(*net.TCPListener)), "127.0.0.1:0", false},
		{"no socket", null, "127.0.0.1:0", false},
		{"no address", bind("udp4", "127.0.0.1:0"), "127.0.0.1", false},
	} {
		if got := fits(c.file, c.address); got != c.want {
			t.Errorf("%s: fits %q: %t", c.name, c.address, got)
		}
	}
}

func fileOf(t *testing.T, c interface{ File() (*os.File, error) }) *os.File {
	t.Helper()
	f, err := c.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}
