package natlog

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/netsampler/goflow2/v2/decoders/netflow"

	"github.com/sessiond/sessiond/internal/natlog/wire"
	"github.com/sessiond/sessiond/internal/testenv"
)

// sinkTest is a sink that runs, and what its collector has.
type sinkTest struct {
	t       *testing.T
	o       Options
	sink    *Sink
	stop    context.CancelFunc
	stopped chan error

	mu   sync.Mutex
	seen map[int]int // number of times that each event came
	last int         // the event that came last
}

func newSinkTest(t *testing.T, o Options) *sinkTest {
	o.Spool, o.Log = filepath.Join(t.TempDir(), "spool"), slog.New(slog.DiscardHandler)
	w := &sinkTest{t: t, o: o, seen: map[int]int{}}
	t.Cleanup(w.halt)
	return w
}

func (w *sinkTest) boot() {
	w.t.Helper()
	var err error
	if w.sink, err = Open(w.o); err != nil {
		w.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	w.stop, w.stopped = stop, make(chan error, 1)
	sink, stopped := w.sink, w.stopped
	go func() { stopped <- sink.Run(ctx) }()
}

func (w *sinkTest) halt() {
	w.t.Helper()
	if w.sink == nil {
		return
	}
	w.stop()
	if err := errors.Join(<-w.stopped, w.sink.Close()); err != nil {
		w.t.Error(err)
	}
	w.sink = nil
}

func (w *sinkTest) append(first, n int) {
	w.t.Helper()
	if err := w.sink.Append("default", strconv.Itoa(first+n), eventsFrom(first, n)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *sinkTest) saw(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen[n]++
	w.last = n
}

// await waits until all of the first n events have come, and the spool is empty.
func (w *sinkTest) await(n int) {
	w.t.Helper()
	testenv.Succeeds(w.t, func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		for i := range n {
			if w.seen[i] == 0 {
				return fmt.Errorf("event %d of %d has not come", i, n)
			}
		}
		stats, err := w.sink.Stats()
		if err != nil || stats.SpoolEvents != 0 || stats.SpoolOctets != 0 || stats.Dropped != 0 {
			return fmt.Errorf("the figures are %+v, %v", stats, err)
		}
		return nil
	})
}

// flows reads messages of IPFIX or NetFlow v9 as one collector.
type flows struct {
	w     *sinkTest
	known netflow.NetFlowTemplateSystem
	blind int // data sets without their template
}

func (f *flows) message(b []byte) {
	var v9 netflow.NFv9Packet
	var v10 netflow.IPFIXPacket
	if err := netflow.DecodeMessageVersion(bytes.NewBuffer(b), f.known, &v9, &v10); err != nil && !errors.Is(err, netflow.ErrorTemplateNotFound) {
		f.w.t.Errorf("a message cannot be read: %v", err)
		return
	}
	for _, set := range append(v9.FlowSets, v10.FlowSets...) {
		data, ok := set.(netflow.DataFlowSet)
		if _, raw := set.(netflow.RawFlowSet); raw {
			f.blind++
		}
		if !ok {
			continue
		}
		for _, r := range data.Records {
			f.w.saw(int(binary.BigEndian.Uint64(r.Values[0].Value.([]byte))))
		}
	}
}

// listenUDP returns a collector at an address, until it is closed.
func (w *sinkTest) listenUDP(address string, message func([]byte)) (where string, closed func()) {
	w.t.Helper()
	var conn net.PacketConn
	testenv.Succeeds(w.t, func() (err error) {
		conn, err = net.ListenPacket("udp", address)
		return err
	})
	var reading sync.WaitGroup
	reading.Go(func() {
		b := make([]byte, 65536)
		for {
			n, _, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			message(bytes.Clone(b[:n]))
		}
	})
	closed = sync.OnceFunc(func() {
		_ = conn.Close()
		reading.Wait()
	})
	w.t.Cleanup(closed)
	return conn.LocalAddr().String(), closed
}

// TestDatagrams_LOG02: events come over UDP; a collector that starts again reads them within a
// template interval; while its port is closed they wait in the spool.
func TestDatagrams_LOG02(t *testing.T) {
	t.Parallel()
	for _, p := range []Protocol{IPFIX, NetFlow9} {
		t.Run(string(p), func(t *testing.T) {
			t.Parallel()
			w := newSinkTest(t, Options{Protocol: p, TemplateInterval: time.Hour, TemplateMessages: 5})
			f := &flows{w: w, known: netflow.CreateTemplateSystem()}
			address, closed := w.listenUDP("127.0.0.1:0", f.message)
			w.o.Target = "udp://" + address
			w.boot()
			w.append(0, 1000)
			w.await(1000)
			closed()
			if f.blind > 0 {
				t.Errorf("%d sets came before their templates", f.blind)
			}

			again := &flows{w: w, known: netflow.CreateTemplateSystem()} // has forgotten all templates
			_, closed = w.listenUDP(address, again.message)
			n := 1000
			testenv.Succeeds(t, func() error {
				w.append(n, 1)
				n++
				w.mu.Lock()
				defer w.mu.Unlock()
				if w.last < 1000 {
					return errors.New("nothing was read after the start")
				}
				return nil
			})
			if first := w.last; first > 1000+5+1 {
				t.Errorf("the first event that was read is number %d", first-1000)
			}
			closed()

			failed := func() uint64 {
				stats, err := w.sink.Stats()
				if err != nil {
					t.Fatal(err)
				}
				return stats.Failures
			}
			w.append(n, 1) // its datagram is lost, and the answer to it tells
			testenv.Eventually(t, "a refused datagram", func() bool {
				w.append(n+1, 1)
				return failed() > 0
			})
			w.append(n+2, 500)
			third := &flows{w: w, known: netflow.CreateTemplateSystem()}
			w.listenUDP(address, third.message)
			testenv.Eventually(t, "what waited", func() bool {
				w.mu.Lock()
				defer w.mu.Unlock()
				return w.seen[n+2] > 0 && w.seen[n+501] > 0
			})
		})
	}
}

// streamCollector is a collector of TCP that ends connections at random.
type streamCollector struct {
	w      *sinkTest
	read   func(*bufio.Reader) error // one message
	most   atomic.Int64              // messages of a connection
	random *rand.Rand
}

// listen accepts connections one by one until it is closed.
func (c *streamCollector) listen(address string, secure *tls.Config) (where string, closed func()) {
	c.w.t.Helper()
	var l net.Listener
	testenv.Succeeds(c.w.t, func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	})
	where = l.Addr().String()
	if secure != nil {
		l = tls.NewListener(l, secure)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var reading sync.WaitGroup
	reading.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			leave := context.AfterFunc(ctx, func() { _ = conn.Close() })
			r := bufio.NewReader(conn)
			for range 1 + c.random.Int64N(c.most.Load()) {
				if err := c.read(r); err != nil {
					break
				}
			}
			leave()
			_ = conn.Close()
		}
	})
	closed = sync.OnceFunc(func() {
		cancel()
		_ = l.Close()
		reading.Wait()
	})
	c.w.t.Cleanup(closed)
	return where, closed
}

// readIPFIX returns a reader of one connection's messages.
func (w *sinkTest) readIPFIX(r *bufio.Reader) func() error {
	f := &flows{w: w, known: netflow.CreateTemplateSystem()}
	return func() error {
		head, err := r.Peek(4)
		if err != nil {
			return err
		}
		message := make([]byte, binary.BigEndian.Uint16(head[2:]))
		if _, err := io.ReadFull(r, message); err != nil {
			return err
		}
		f.message(message)
		if f.blind > 0 {
			w.t.Error("a set came before its template")
		}
		return nil
	}
}

// TestStreamLosesNothing_LOG02_LOG12: a collector that ends its connection at random places, is
// away and starts again has every event in the end, over TCP and TLS; and so if the sink starts
// again in between.
func TestStreamLosesNothing_LOG02_LOG12(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(nil)
	server.StartTLS()
	certificate, roots := server.TLS.Certificates, x509.NewCertPool()
	roots.AddCert(server.Certificate())
	server.Close()
	for _, p := range []Protocol{IPFIX, Syslog} {
		for _, scheme := range []string{"tcp", "tls"} {
			t.Run(fmt.Sprint(p, " ", scheme), func(t *testing.T) {
				t.Parallel()
				w := newSinkTest(t, Options{Protocol: p, TLS: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}})
				c := &streamCollector{w: w, random: rand.New(rand.NewPCG(15, 4))}
				c.most.Store(40)
				var of *bufio.Reader
				var read func() error
				c.read = func(r *bufio.Reader) error {
					if r != of {
						of, read = r, w.readIPFIX(r)
						if p == Syslog {
							read = func() error { return w.readCounted(r) }
						}
					}
					return read()
				}
				var secure *tls.Config
				if scheme == "tls" {
					secure = &tls.Config{Certificates: certificate, MinVersion: tls.VersionTLS12}
				}
				address, closed := c.listen("127.0.0.1:0", secure)
				w.o.Target = scheme + "://" + address
				w.boot()
				n := 0
				for i := range 30 {
					w.append(n, 100)
					n += 100
					switch i {
					case 10:
						closed()
					case 15:
						w.halt()
						w.boot()
					case 20:
						_, closed = c.listen(address, secure)
					}
				}
				c.most.Store(1 << 30)
				w.await(n)
			})
		}
	}
}

// readCounted reads one syslog message behind its length.
func (w *sinkTest) readCounted(r *bufio.Reader) error {
	length, err := r.ReadString(' ')
	if err != nil {
		return err
	}
	size, err := strconv.Atoi(strings.TrimSuffix(length, " "))
	if err != nil {
		w.t.Errorf("the length of a message is %q", length)
		return err
	}
	message := make([]byte, size)
	if _, err := io.ReadFull(r, message); err != nil {
		return err
	}
	w.sawTime(strings.Fields(string(message))[1])
	return nil
}

// sawTime notes the event at a time.
func (w *sinkTest) sawTime(text string) {
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		w.t.Error(err)
	}
	w.saw(int(at.UnixMilli()))
}

func TestSyslogDatagrams_LOG12(t *testing.T) {
	t.Parallel()
	w := newSinkTest(t, Options{Protocol: Syslog})
	address, _ := w.listenUDP("127.0.0.1:0", func(b []byte) { w.sawTime(strings.Fields(string(b))[1]) })
	w.o.Target = "udp://" + address
	w.boot()
	w.append(0, 700)
	w.await(700)
}

// TestPosts: a collector that answers with errors has every event in the end, and one that
// refuses is named with its answer.
func TestPosts(t *testing.T) {
	t.Parallel()
	w := newSinkTest(t, Options{Protocol: HTTP, Batch: 7})
	random := rand.New(rand.NewPCG(15, 5))
	refuse := true
	var mu sync.Mutex
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/x-ndjson" {
			t.Errorf("%s %v, %v", r.Method, r.Header, err)
		}
		lines := bytes.Split(bytes.TrimSuffix(body, []byte("\n")), []byte("\n"))
		switch {
		case len(lines) > 7:
			t.Errorf("a body of %d lines", len(lines))
		case refuse:
			http.Error(rw, "the disk is full", http.StatusInsufficientStorage)
			return
		case random.IntN(60) == 0:
			http.Redirect(rw, r, "http://127.0.0.1:1/", http.StatusTemporaryRedirect)
			return
		}
		for _, line := range lines {
			e, err := wire.ParseJSON(line)
			if err != nil {
				t.Error(err)
			}
			w.saw(int(e.At.UnixMilli()))
		}
	}))
	t.Cleanup(server.Close)
	w.o.Target = server.URL + "/nat"
	w.boot()
	w.append(0, 300)
	testenv.Succeeds(t, func() error {
		stats, err := w.sink.Stats()
		if err != nil || stats.LastError == nil || !strings.Contains(stats.LastError.Error(), "507 Insufficient Storage: the disk is full") {
			return fmt.Errorf("the figures are %+v, %v", stats, err)
		}
		return nil
	})
	mu.Lock()
	refuse = false
	mu.Unlock()
	w.await(300)
}

// TestAbsentCollectorHoldsNobodyUp: while a collector is away, or takes nothing, Append goes on,
// and what the spool has no room for is counted.
func TestAbsentCollectorHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts by its backlog, and reads nothing
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	w := newSinkTest(t, Options{Protocol: Syslog, Target: "tcp://" + l.Addr().String(), SpoolSize: LeastSpool})
	w.boot()
	const n = 20_000
	for i := range n / 1000 {
		w.append(1000*i, 1000)
	}
	stats, err := w.sink.Stats()
	if err != nil || stats.Dropped+stats.SpoolEvents != n || stats.Dropped == 0 || stats.SpoolOctets > LeastSpool {
		t.Errorf("the figures are %+v, %v", stats, err)
	}
	if position, err := w.sink.Position("default"); position != strconv.Itoa(n) || err != nil {
		t.Errorf("position %s, %v", position, err)
	}
}

func TestTargets(t *testing.T) {
	for _, tt := range []struct {
		protocol     Protocol
		target, want string // "" for none
	}{
		{IPFIX, "udp://192.0.2.5", ""}, {IPFIX, "tcp://[2001:db8::1]:9", ""}, {IPFIX, "tls://collector.example", ""},
		{NetFlow9, "udp://192.0.2.5:2055", ""}, {Syslog, "tls://192.0.2.6:6514", ""}, {HTTP, "https://collector/a?b=c", ""},
		{IPFIX, "192.0.2.5:4739", "no address; write tcp://HOST:PORT"}, {IPFIX, "http://c", "begins with none of tcp://, tls://, udp://"},
		{NetFlow9, "tcp://192.0.2.5", "begins with none of udp://"}, {Syslog, "udp://", "has no host"},
		{Syslog, "udp://a:0", "must be 1 to 65535"}, {Syslog, "udp://a:70000", "must be 1 to 65535"},
		{Syslog, "udp://a/b", "more than a host and a port"}, {HTTP, "https://u:secret@collector/", "password"}, {"sflow", "udp://a", "is unknown"},
	} {
		err := CheckTarget(tt.protocol, tt.target)
		if (err == nil) != (tt.want == "") || err != nil && (!strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret")) {
			t.Errorf("%s %s: %v, want %q", tt.protocol, tt.target, err, tt.want)
		}
	}
}
