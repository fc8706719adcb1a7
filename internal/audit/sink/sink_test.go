package sink

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/audit"
	"github.com/sessiond/sessiond/internal/testenv"
)

// source is a Source in memory, with one trail.
type source struct {
	mu        sync.Mutex
	entries   []audit.Stored
	positions map[string]string
	number    uint64 // of the last entry
	removed   uint64 // number of the last entry that was removed
	err       error
}

func (s *source) Trails(context.Context) ([]string, error) { return []string{"default"}, nil }

func (s *source) End(context.Context, string) (audit.End, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	end := audit.End{Number: s.number, Removed: s.removed}
	if n := len(s.entries); n > 0 {
		end.ID = s.entries[n-1].ID
	}
	return end, s.err
}

// trim removes the oldest entries but for the last n.
func (s *source) trim(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removed = s.number - uint64(n)
	s.entries = s.entries[len(s.entries)-n:]
}

// empty removes all, as of a Redis that lost its data. Later entries have lower identifiers.
func (s *source) empty(positions string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entries, s.number, s.removed, s.positions = nil, 0, 0, nil
	if positions != "" {
		s.positions = map[string]string{"file:cgn1": positions}
	}
}

func (s *source) Behind(_ context.Context, _, id string, limit int) ([]audit.Stored, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, _ := strconv.Atoi(strings.TrimSuffix(id, "-0"))
	var found []audit.Stored
	for _, e := range s.entries {
		if at, _ := strconv.Atoi(strings.TrimSuffix(e.ID, "-0")); at > n && len(found) < limit {
			found = append(found, e)
		}
	}
	return found, s.err
}

func (s *source) Position(_ context.Context, _, sink string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.positions[sink], s.err
}

func (s *source) SetPosition(_ context.Context, _, sink, position string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.positions == nil {
		s.positions = map[string]string{}
	}
	s.positions[sink] = position
	return s.err
}

// add appends entries with the given numbers.
func (s *source) add(t *testing.T, numbers ...uint64) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range numbers {
		text, head, err := audit.Seal(audit.Entry{Trail: "default", Actor: "user:0", At: time.Unix(1_772_359_200, 0).UTC()}, audit.Head{Number: n - 1})
		if err != nil {
			t.Fatal(err)
		}
		s.number = n
		s.entries = append(s.entries, audit.Stored{Place: audit.Place{ID: fmt.Sprint(n, "-0"), Trail: "default"}, Text: text, Hash: head.Hash})
	}
}

func newFollower(s *source, w Writer, lost *int) *Follower {
	return NewFollower(Options{
		Name: "file:cgn1", Source: s, Writer: w, Logger: slog.New(slog.DiscardHandler), Lost: func(n int) { *lost += n },
	})
}

// numbersIn returns the numbers of the entries in a file, whose hashes have to be right.
func numbersIn(t *testing.T, path string) (numbers []uint64) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var x struct {
			Hash  string
			Entry json.RawMessage
		}
		if err := json.Unmarshal([]byte(line), &x); err != nil {
			t.Logf("torn line %q", line)
			continue
		}
		e, err := audit.ParseEntry(string(x.Entry))
		if err != nil || audit.HashOf(string(x.Entry)) != x.Hash {
			t.Errorf("line %q: %v, or its hash is another", line, err)
		}
		numbers = append(numbers, e.Number)
	}
	return numbers
}

func check(t *testing.T, what string, got []uint64, want ...uint64) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// TestFileFollows: a file gets each entry, across restarts, moves and errors; entries that
// are gone before are counted.
func TestFileFollows(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.json")
	s, lost := &source{}, 0
	f := newFollower(s, NewFile(path), &lost)
	copyAll := func() {
		t.Helper()
		if err := f.copyAll(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	s.add(t, 1, 2)
	copyAll()
	check(t, "at first", numbersIn(t, path), 1, 2)

	f = newFollower(s, NewFile(path), &lost) // another daemon's run
	s.add(t, 3)
	copyAll()
	check(t, "after a restart", numbersIn(t, path), 1, 2, 3)

	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	s.add(t, 4)
	copyAll()
	check(t, "moved file", numbersIn(t, path+".1"), 1, 2, 3)
	check(t, "new file", numbersIn(t, path), 4)

	s.add(t, 8, 9)
	copyAll()
	if check(t, "with a gap", numbersIn(t, path), 4, 8, 9); lost != 3 {
		t.Errorf("%d entries count as lost, want 3", lost)
	}

	if err := os.WriteFile(path, []byte(`{"hash":"torn`), 0o600); err != nil {
		t.Fatal(err)
	}
	s.add(t, 10)
	copyAll()
	check(t, "behind a torn line", numbersIn(t, path), 10)

	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	s.add(t, 11)
	if err := f.copyAll(t.Context()); err == nil {
		t.Error("written into a folder")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	copyAll()
	check(t, "after an error", numbersIn(t, path), 11)
	if mode, err := os.Stat(path); err != nil || mode.Mode().Perm()&0o027 != 0 {
		t.Errorf("mode %v, %v", mode.Mode(), err)
	}
}

// TestPipeIsRefused: it could not be synced, and without a reader it would hold up a stop.
func TestPipeIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := NewFile(path).Write(t.Context(), []Line{{Text: "{}"}}); err == nil || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("error %v", err)
	}
}

// badTrail is a source with a trail before the others that cannot be read.
type badTrail struct{ *source }

func (b badTrail) Trails(context.Context) ([]string, error) {
	return []string{"bad", "default"}, errors.New("some names are not known")
}

func (b badTrail) Behind(ctx context.Context, trail, id string, limit int) ([]audit.Stored, error) {
	if trail == "bad" {
		return nil, errors.New("WRONGTYPE")
	}
	return b.source.Behind(ctx, trail, id, limit)
}

// TestBadTrailHoldsUpNoOther: the other trails are copied, and the error names the bad one.
func TestBadTrailHoldsUpNoOther(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.json")
	s, lost := &source{}, 0
	f := newFollower(s, NewFile(path), &lost)
	f.o.Source = badTrail{s}
	s.add(t, 1, 2)
	if err := f.copyAll(t.Context()); err == nil || !strings.Contains(err.Error(), "trail bad: WRONGTYPE") || !strings.Contains(err.Error(), "some names") {
		t.Errorf("error %v", err)
	}
	check(t, "the other trail", numbersIn(t, path), 1, 2)
}

// TestLossesOfASinkThatNeverWrote: entries that were removed before the sink began are no loss;
// those that were removed since are, also where it never wrote one, and across restarts.
func TestLossesOfASinkThatNeverWrote(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.json")
	for name, c := range map[string]struct {
		before uint64 // entries that were removed before the sink began
		there  bool   // entries were there when it began
	}{
		"of a new trail": {0, false}, "of a trail with entries": {0, true}, "of a trail that was trimmed": {5, true}, "of a trail that had lost all": {5, false},
	} {
		t.Run(name, func(t *testing.T) {
			s, lost := &source{number: c.before, removed: c.before}, 0
			if c.there {
				s.add(t, c.before+1, c.before+2)
			}
			if err := os.Mkdir(path, 0o700); err != nil { // nothing can be written there
				t.Fatal(err)
			}
			if err := newFollower(s, NewFile(path), &lost).copyAll(t.Context()); (err != nil) != c.there {
				t.Errorf("at first: %v", err)
			}
			first := s.number + 1
			s.add(t, first, first+1, first+2, first+3)
			s.trim(1)
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			defer os.Remove(path)
			if err := newFollower(s, NewFile(path), &lost).copyAll(t.Context()); err != nil {
				t.Fatal(err)
			}
			check(t, "then", numbersIn(t, path), first+3)
			if want := int(first + 2 - c.before); lost != want {
				t.Errorf("%d entries count as lost, want %d", lost, want)
			}
		})
	}
}

// TestUnreadableEntriesAreNotLost: entries that cannot be read are copied as they are, and only those
// that are missing count as lost, whether they come at once or one by one.
func TestUnreadableEntriesAreNotLost(t *testing.T) {
	t.Parallel()
	for _, atOnce := range []bool{true, false} {
		s, lost := &source{}, 0
		path := filepath.Join(t.TempDir(), "audit.json")
		f := newFollower(s, NewFile(path), &lost)
		for _, step := range []struct {
			number   uint64
			readable bool
		}{{1, true}, {2, false}, {3, false}, {4, true}, {5, false}, {8, true}} { // 6 and 7 are missing
			s.add(t, step.number)
			if !step.readable {
				s.entries[len(s.entries)-1].Text = "{"
			}
			if atOnce && step.number < 8 {
				continue
			}
			if err := f.copyAll(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		text, err := os.ReadFile(path)
		if n := strings.Count(string(text), "\n"); err != nil || n != 6 || lost != 2 {
			t.Errorf("at once %v: %d lines, %d lost, want 6 and 2; %v", atOnce, n, lost, err)
		}
	}
}

// TestPlaceBehindTheEnd: after Redis lost its data, or came back from a backup, a place that the
// trail does not reach is not believed, and all entries of the new trail are copied.
func TestPlaceBehindTheEnd(t *testing.T) {
	for name, c := range map[string]struct {
		stored  string // position that came back, "" for none
		restart bool   // of the daemon
		add     []uint64
		want    []uint64 // copied since
		lost    int
	}{
		"emptied":                      {"", false, []uint64{1, 2}, []uint64{1, 2}, 0},
		"emptied, and a restart":       {"", true, []uint64{1, 2}, []uint64{1, 2}, 0},
		"from a backup":                {"2-0 2", false, []uint64{2, 3, 4}, []uint64{3, 4}, 0},
		"from a backup, and restart":   {"2-0 2", true, []uint64{2, 3, 4}, []uint64{3, 4}, 0},
		"position behind the end":      {"9-0 9", true, []uint64{1, 2}, []uint64{1, 2}, 0},
		"number behind the end":        {"1-0 9", true, []uint64{1, 4}, []uint64{4}, 3},
		"position that is no position": {"x", true, []uint64{1, 2}, []uint64{1, 2}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "audit.json")
			s, lost := &source{}, 0
			f := newFollower(s, NewFile(path), &lost)
			copyAll := func() {
				t.Helper()
				if err := f.copyAll(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			s.add(t, 5, 6, 7)
			copyAll()
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			s.empty(c.stored)
			if lost = 0; c.restart {
				f = newFollower(s, NewFile(path), &lost)
			}
			s.add(t, c.add...)
			copyAll()
			copyAll() // the first one notices
			check(t, "copied", numbersIn(t, path), c.want...)
			if copyAll(); lost != c.lost {
				t.Errorf("%d entries count as lost, want %d", lost, c.lost)
			}
			check(t, "copied once", numbersIn(t, path), c.want...)
			if last := fmt.Sprintf("%d-0 %[1]d", c.add[len(c.add)-1]); s.positions["file:cgn1"] != last {
				t.Errorf("position %q, want %q", s.positions["file:cgn1"], last)
			}
		})
	}
}

// hungWriter is a Writer that does not return until it is released.
type hungWriter struct{ entered, release, closed chan struct{} }

func (w *hungWriter) Write(context.Context, []Line) error {
	close(w.entered)
	<-w.release
	return errors.New("released")
}

func (w *hungWriter) Close() error {
	close(w.closed)
	return nil
}

// TestHungSinkHoldsUpNoStop: a write that does not return is left behind, and noted.
func TestHungSinkHoldsUpNoStop(t *testing.T) {
	w := &hungWriter{make(chan struct{}), make(chan struct{}), make(chan struct{})}
	s, lost := &source{}, 0
	s.add(t, 1)
	f := newFollower(s, w, &lost)
	var log strings.Builder
	f.o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	<-w.entered
	cancel()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) || !strings.Contains(log.String(), "is not waited for") {
			t.Errorf("Run: %v, %s", err, log.String())
		}
	case <-time.After(10 * leaveAfter):
		t.Error("a write that hangs holds up the stop")
	}
	close(w.release)
	<-w.closed
	if s.positions["file:cgn1"] != "0-0 0" {
		t.Errorf("position %q, though nothing was written", s.positions["file:cgn1"])
	}
}

// TestHungFile: an open that the kernel holds up, as of a file of a server that is away, holds up
// no stop. A lease of the file holds it up here.
func TestHungFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.json")
	holder, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(holder.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		testenv.Lacks(t, fmt.Sprintf("leases of files in %s: %v", path, err))
	}
	s, lost := &source{}, 0
	s.add(t, 1)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- newFollower(s, NewFile(path), &lost).Run(ctx) }()
	testenv.Eventually(t, "the lease to be asked for", func() bool {
		now, err := unix.FcntlInt(holder.Fd(), unix.F_GETLEASE, 0)
		return err == nil && now == unix.F_UNLCK
	})
	cancel()
	select {
	case <-done:
	case <-time.After(10 * leaveAfter):
		t.Error("a file that hangs holds up the stop")
	}
	if err := holder.Close(); err != nil {
		t.Error(err)
	}
	testenv.Eventually(t, "the write to go on", func() bool { return len(numbersIn(t, path)) == 1 })
}

// TestRunRetries: Run goes on after errors, and ends with its context.
func TestRunRetries(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.json")
	s, lost := &source{}, 0
	s.add(t, 1)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- newFollower(s, NewFile(path), &lost).Run(ctx) }()
	testenv.Eventually(t, "the entry is written", func() bool {
		_, err := os.Stat(path)
		return err == nil && len(numbersIn(t, path)) == 1
	})
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Run: %v", err)
	}
}

var rfc5424 = regexp.MustCompile(`^<109>1 2026-03-01T10:00:00\.000000Z cgn1 sessiond \d+ audit - (\{.*\})$`)

// TestSyslogDatagrams: each entry is one message of RFC 5424, a datagram each.
func TestSyslogDatagrams(t *testing.T) {
	folder := t.TempDir()
	unix, err := net.ListenPacket("unixgram", filepath.Join(folder, "log"))
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	for target, server := range map[string]net.PacketConn{
		"unix:" + filepath.Join(folder, "log"): unix, "udp://" + udp.LocalAddr().String(): udp,
	} {
		send(t, target)
		message := make([]byte, 64<<10)
		if err := server.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, _, err := server.ReadFrom(message)
		if err != nil || !rfc5424.Match(message[:n]) {
			t.Errorf("%s: %q, %v", target, message[:n], err)
		}
		_ = server.Close()
	}
}

// readStream reads the messages of one connection to their end, and closes it.
func readStream(t *testing.T, conn net.Conn) (numbers []uint64) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	for {
		length, err := in.ReadString(' ')
		if err == io.EOF {
			return numbers
		}
		n, errLength := strconv.Atoi(strings.TrimSpace(length))
		message := make([]byte, max(n, 0))
		if _, err := io.ReadFull(in, message); err != nil || errLength != nil {
			t.Errorf("%q: %v, %v", message, err, errLength)
			return numbers
		}
		found := rfc5424.FindSubmatch(message)
		if found == nil {
			t.Errorf("message %q", message)
			return numbers
		}
		var line struct{ Entry struct{ Number uint64 } }
		if err := json.Unmarshal(found[1], &line); err != nil {
			t.Error(err)
		}
		numbers = append(numbers, line.Entry.Number)
	}
}

// TestSyslogStreams: over TCP and TLS an entry counts as written once the server has read it; what
// a server did not read comes again, also after a restart that nobody noticed.
func TestSyslogStreams(t *testing.T) {
	web := httptest.NewTLSServer(nil) // has a certificate
	defer web.Close()
	for _, scheme := range []string{"tcp", "tls"} {
		t.Run(scheme, func(t *testing.T) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			written, err := NewSyslog(scheme+"://"+listener.Addr().String(), "cgn1")
			if err != nil {
				t.Fatal(err)
			}
			w := written.(*syslog)
			if scheme == "tls" {
				w.secure.RootCAs = web.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
			}
			s, lost := &source{}, 0
			f := newFollower(s, w, &lost)
			copyTo := func(serve func(net.Conn) []uint64) ([]uint64, error) {
				got := make(chan []uint64, 1)
				if err := listener.(*net.TCPListener).SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
					t.Fatal(err)
				}
				go func() {
					conn, err := listener.Accept()
					if err != nil {
						got <- nil
						return
					}
					if scheme == "tls" {
						conn = tls.Server(conn, &tls.Config{Certificates: web.TLS.Certificates})
					}
					got <- serve(conn)
				}()
				err := f.copyAll(t.Context())
				return <-got, err
			}
			whole := func(conn net.Conn) []uint64 { return readStream(t, conn) }
			s.add(t, 1, 2)
			if _, err := copyTo(func(conn net.Conn) []uint64 {
				_ = conn.Close()
				return nil
			}); err == nil {
				t.Fatal("a server that reads nothing has all entries")
			}
			numbers, err := copyTo(whole)
			if check(t, "then", numbers, 1, 2); err != nil {
				t.Error(err)
			}
			s.add(t, 3)
			numbers, err = copyTo(whole)
			if check(t, "from a server that closed the connection meanwhile", numbers, 3); err != nil {
				t.Error(err)
			}
		})
	}
}

// send copies two entries to a syslog server.
func send(t *testing.T, target string) {
	t.Helper()
	w, err := NewSyslog(target, "cgn1")
	if err != nil {
		t.Fatal(err)
	}
	s, lost := &source{}, 0
	s.add(t, 1, 2)
	if err := newFollower(s, w, &lost).copyAll(t.Context()); err != nil {
		t.Errorf("%s: %v", target, err)
	}
	t.Cleanup(func() { _ = w.Close() })
}

// TestSyslogTargets: mistakes are named.
func TestSyslogTargets(t *testing.T) {
	for target, want := range map[string]string{
		"udp://192.0.2.5": "192.0.2.5:514", "tls://log.example": "log.example:6514", "tcp://[2001:db8::1]:1514": "[2001:db8::1]:1514", "unix:/dev/log": "/dev/log",
		"": "", "/dev/log": "", "udp:/x": "", "ftp://x": "", "unix:": "", "udp://": "", "tcp://x/path": "", "://": "",
	} {
		w, err := NewSyslog(target, "")
		if want == "" {
			if err == nil {
				t.Errorf("%q is accepted", target)
			}
			continue
		}
		if err != nil || w.(*syslog).address != want {
			t.Errorf("%q: %+v, %v", target, w, err)
		}
	}
}
