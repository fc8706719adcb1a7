package system

import (
	"bufio"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sessiond/sessiond/internal/rig"
)

// syslogServer collects syslog messages over TCP, with octet counting.
type syslogServer struct {
	address string
	mu      sync.Mutex
	lines   []string
}

func (w *world) syslogServer() *syslogServer {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	w.must(err)
	s := &syslogServer{address: l.Addr().String()}
	var reading sync.WaitGroup
	reading.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			reading.Go(func() { s.read(conn) })
			w.t.Cleanup(func() { _ = conn.Close() })
		}
	})
	w.t.Cleanup(func() { _ = l.Close() })
	return s
}

func (s *syslogServer) read(conn net.Conn) {
	r := bufio.NewReader(conn)
	for {
		var size int
		if _, err := fmt.Fscanf(r, "%d ", &size); err != nil {
			return
		}
		line := make([]byte, size)
		for i := range line {
			c, err := r.ReadByte()
			if err != nil {
				return
			}
			line[i] = c
		}
		s.mu.Lock()
		s.lines = append(s.lines, string(line))
		s.mu.Unlock()
	}
}

// distinct returns the messages that have a text, each once: those of a connection that ended may come again.
func (s *syslogServer) distinct(text string) (list []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, line := range s.lines {
		if _, message, _ := strings.Cut(line, " sessiond "); strings.Contains(line, text) {
			_, message, _ = strings.Cut(message, " ") // without the process identifier
			at, _, _ := strings.Cut(line[len("<134>1 "):], " ")
			list = append(list, at+" "+message)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// TestExport_LOG06_LOG07: a collector learns each block of a subscriber, with who had it, and its
// release once the kernel has nothing of it, over kills of the daemon: one allocation, one release.
func TestExport_LOG06_LOG07(t *testing.T) {
	w := start(t, rig.Options{Memory: true})
	collector := w.syslogServer()
	w.must(w.Daemon.Edit(func(config string) string {
		return config + fmt.Sprintf("export: {syslog: [{collector: 'tcp://%s', pen: 99}], spool: {path: %q}}\n", collector.address, t.TempDir())
	}))
	restart := func() {
		t.Helper()
		w.must(w.Daemon.Kill())
		w.must(w.Daemon.Start(w.ctx))
	}
	restart()
	await := func(text string, n int) []string {
		t.Helper()
		var list []string
		w.must(w.Until(w.ctx, fmt.Sprintf("%d messages with %q", n, text), func() (bool, error) {
			list = collector.distinct(text)
			return len(list) >= n, nil
		}))
		if len(list) > n {
			t.Errorf("%d messages with %q, want %d:\n%s", len(list), text, n, strings.Join(list, "\n"))
		}
		return list
	}
	s := sessionOf(alice, "a-1")
	b := w.online(s)
	allocated := await("block-allocated", 1)[0]
	for _, text := range []string{"[nat@99 ", `outside="` + b.OutsideAddress + `"`, `first="` + fmt.Sprint(b.FirstPort) + `"`, `inside="` + s.Inside.String() + `"`, `user="` + s.User + `"`, `session="a-1"`} {
		if !strings.Contains(allocated, text) {
			t.Errorf("%q is missing in %s", text, allocated)
		}
	}
	restart()
	w.must(w.Offline(w.ctx, s))
	released := await("block-released", 1)[0]
	at, _, _ := strings.Cut(allocated, " ")
	for _, text := range []string{`since="` + at + `"`, `user="` + s.User + `"`, `session="a-1"`, `outside="` + b.OutsideAddress + `"`} {
		if !strings.Contains(released, text) {
			t.Errorf("%q is missing in %s", text, released)
		}
	}
	restart()
	w.online(sessionOf(bob, "b-1"))
	await("block-allocated", 2)
	await("block-released", 1)
}
