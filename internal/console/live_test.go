package console

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sessiond/sessiond/internal/control/controltest"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/testenv"
)

// serveBriefly starts a console whose server gives pages a short time.
func serveBriefly(t *testing.T, o Options, within time.Duration, secured bool) *httptest.Server {
	t.Helper()
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(c.Handler())
	s.Config.ReadTimeout, s.Config.WriteTimeout = within, within
	if s.EnableHTTP2 = secured; secured {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s
}

// message is one message of a stream.
type message struct{ event, data string }

// listener reads a stream.
type listener struct {
	resp  *http.Response
	lines *bufio.Scanner
}

func listen(t *testing.T, s *httptest.Server) *listener {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, "GET", s.URL+Path+"live", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	return &listener{resp, lines}
}

// next returns the next message of a kind.
func (l *listener) next(t *testing.T, event string) message {
	t.Helper()
	var m message
	for l.lines.Scan() {
		switch line := l.lines.Text(); {
		case strings.HasPrefix(line, "event: "):
			m.event = line[len("event: "):]
		case strings.HasPrefix(line, "data: "):
			m.data = line[len("data: "):]
		case line == "" && m.event == event:
			return m
		}
	}
	t.Fatalf("the stream ended: %v", l.lines.Err())
	return m
}

func (l *listener) events(t *testing.T) (m eventsMessage) {
	t.Helper()
	if err := json.Unmarshal([]byte(l.next(t, "events").data), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// publish waits until somebody watches, and publishes n events.
func publish(t testing.TB, b *controltest.Backend, n int, user string) {
	t.Helper()
	testenv.Eventually(t, "somebody watches", b.Watched)
	s := controltest.Scene().Online[0]
	s.UserName = user
	for range n {
		b.Publish(inspect.Event{At: controltest.Now, Kind: inspect.EventCut, End: subscriber.End{Reason: 1}, Subscriber: s})
	}
}

// TestStreamOutlivesTimeouts: the deadlines of the server for a page do not end a stream, and it
// goes on telling.
func TestStreamOutlivesTimeouts(t *testing.T) {
	t.Parallel()
	for protocol, secured := range map[string]bool{"HTTP/1.1": false, "HTTP/2.0": true} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			outlivesTimeouts(t, protocol, secured)
		})
	}
}

func outlivesTimeouts(t *testing.T, protocol string, secured bool) {
	t.Helper()
	within := 100 * time.Millisecond
	if secured { // the time is for the handshake, too
		within = 900 * time.Millisecond
	}
	b := controltest.Scene()
	l := listen(t, serveBriefly(t, optionsOf(b), within, secured))
	if l.resp.Proto != protocol {
		t.Fatalf("served by %s", l.resp.Proto)
	}
	if kind := l.resp.Header.Get("Content-Type"); kind != "text/event-stream" {
		t.Fatalf("status %d, type %q", l.resp.StatusCode, kind)
	}
	begin := time.Now()
	l.next(t, "facts")
	l.next(t, "facts")
	if time.Since(begin) < 2*within {
		t.Fatal("the second message came too soon to say anything")
	}
	publish(t, b, 1, "alice")
	if m := l.events(t); len(m.Rows) != 1 || m.Rows[0].Kind != "cut" || m.Rows[0].Inside != "100.64.0.7" || m.Rows[0].Outside != "198.51.100.1" || m.Rows[0].Detail != "STOP" {
		t.Errorf("got %+v", m)
	}
}

// TestFactsOfAStream: the facts of a stream are those of the page.
func TestFactsOfAStream(t *testing.T) {
	t.Parallel()
	_, s := serve(t, optionsOf(controltest.Scene()))
	var m struct{ Facts []shownFact }
	if err := json.Unmarshal([]byte(listen(t, s).next(t, "facts").data), &m); err != nil {
		t.Fatal(err)
	}
	_, page := get(t, s, Path)
	if len(m.Facts) < 15 {
		t.Fatalf("%d facts", len(m.Facts))
	}
	for _, f := range m.Facts {
		if want := fmt.Sprintf(`id="fact-%s" data-level="%s">%s<`, f.ID, f.Level, f.Text); !strings.Contains(page, want) {
			t.Errorf("the page has no %s", want)
		}
	}
}

// changedControls is a backend of tests with another Status.
type changedControls struct {
	*controltest.Backend
	status func(context.Context) (inspect.Status, error)
}

func (c *changedControls) Status(ctx context.Context) (inspect.Status, error) { return c.status(ctx) }

// TestFactsAreOfAllStreams: a browser that leaves while facts are read takes them from nobody, and
// facts that cannot be read, or not soon, leave the earlier ones.
func TestFactsAreOfAllStreams(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := optionsOf(controltest.Scene())
		controls := &changedControls{Backend: controltest.Scene()}
		o.Controls = controls
		c, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		left, leave := context.WithCancel(t.Context())
		leave()
		controls.status = func(context.Context) (inspect.Status, error) { return inspect.Status{}, errors.New("not now") }
		if data := c.facts.encoded(left, c); data != nil {
			t.Fatalf("before there are facts: %s", data)
		}
		time.Sleep(factsEvery)
		controls.status = func(ctx context.Context) (inspect.Status, error) {
			if err := ctx.Err(); err != nil {
				return inspect.Status{}, err
			}
			return controls.Backend.Status(ctx)
		}
		good := c.facts.encoded(left, c)
		if !strings.Contains(string(good), `"facts":[{`) {
			t.Fatalf("for a browser that left: %s", good)
		}
		for name, status := range map[string]func(context.Context) (inspect.Status, error){
			"an error": func(context.Context) (inspect.Status, error) { return inspect.Status{}, errors.New("not now") },
			"no answer": func(ctx context.Context) (inspect.Status, error) {
				<-ctx.Done()
				return inspect.Status{}, ctx.Err()
			},
		} {
			time.Sleep(factsEvery)
			controls.status = status
			begin := time.Now()
			for range 2 { // the second is of a stream that waited
				if data := c.facts.encoded(t.Context(), c); !bytes.Equal(data, good) {
					t.Errorf("%s: %s", name, data)
				}
			}
			if took := time.Since(begin); took > factsWithin {
				t.Errorf("%s: took %v", name, took)
			}
		}
	})
}

// TestManyEvents: a message has so many events at most, and tells the number of the others.
func TestManyEvents(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	b.Broadcaster = inspect.NewBroadcaster(inspect.BroadcasterOptions{Octets: 64 << 20})
	_, s := serve(t, optionsOf(b))
	l := listen(t, s)
	const n = 1000
	publish(t, b, n, "alice")
	rows, leftOut := 0, 0
	for rows+leftOut < n {
		m := l.events(t)
		if len(m.Rows) > eventsPerTick {
			t.Fatalf("a message has %d events", len(m.Rows))
		}
		rows, leftOut = rows+len(m.Rows), leftOut+m.LeftOut
	}
	if rows+leftOut != n || leftOut == 0 {
		t.Errorf("%d events shown, %d left out, of %d", rows, leftOut, n)
	}
}

// TestMissedEvents: a stream that lost events says so, and goes on.
func TestMissedEvents(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	b.Broadcaster = inspect.NewBroadcaster(inspect.BroadcasterOptions{Octets: 2500, Rest: time.Second}) // two events are kept
	_, s := serve(t, optionsOf(b))
	l := listen(t, s)
	publish(t, b, 2, "alice")
	l.events(t)
	publish(t, b, 20, "alice") // while the watcher rests
	for m := l.events(t); !m.Missed; m = l.events(t) {
		if len(m.Rows) > 2 {
			t.Fatalf("got %+v", m)
		}
	}
	publish(t, b, 1, "bob")
	for m := l.events(t); len(m.Rows) == 0 || m.Rows[len(m.Rows)-1].User != "bob"; m = l.events(t) {
		if m.Missed {
			t.Fatalf("after that: %+v", m)
		}
	}
}

// TestHostileEvents: a text of RADIUS breaks no message.
func TestHostileEvents(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	_, s := serve(t, optionsOf(b))
	l := listen(t, s)
	for _, text := range append(hostile, "a\n\nevent: facts\ndata: {}", "\u2028") {
		publish(t, b, 1, text)
		m := l.events(t)
		if len(m.Rows) != 1 || strings.ContainsAny(m.Rows[0].User, "\n\r\x00\x1b\u202e\u2028") {
			t.Errorf("%q became %+v", text, m)
		}
	}
}

// TestStreamsAreBounded: a peer has so many streams, another one has its own, and a stream that ends
// makes room.
func TestStreamsAreBounded_I10(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	_, s := serve(t, optionsOf(b))
	from := func(source string) (net.Conn, int) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
		c, err := d.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprintf(c, "GET %slive HTTP/1.1\r\nHost: localhost\r\n\r\n", Path)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		return c, resp.StatusCode
	}
	var open []net.Conn
	for range maxStreamsPerPeer {
		c, code := from("127.0.0.1")
		if open = append(open, c); code != http.StatusOK {
			t.Fatalf("status %d", code)
		}
	}
	if _, code := from("127.0.0.1"); code != http.StatusServiceUnavailable {
		t.Errorf("one stream too many: status %d", code)
	}
	if _, code := from("127.0.0.2"); code != http.StatusOK {
		t.Errorf("another peer: status %d", code)
	}
	_ = open[0].Close()
	testenv.Eventually(t, "a stream that ended leaves room", func() bool {
		_, code := from("127.0.0.1")
		return code == http.StatusOK
	})
}

// TestEveryEventHasAName: pages have a word for each kind of event.
func TestEveryEventHasAName(t *testing.T) {
	t.Parallel()
	for kind := inspect.EventCreated; kind <= inspect.EventBlockRefused; kind++ {
		if eventNames[kind] == "" {
			t.Errorf("kind %d has no name", kind)
		}
	}
	row := eventRowOf(&inspect.Event{Kind: inspect.EventReaped, End: subscriber.End{Reason: 1}, SessionsEnded: 1234, Subscriber: inspect.Subscriber{}})
	if row.Detail != "STOP, 1,234 sessions" {
		t.Errorf("detail %q", row.Detail)
	}
	if (netip.Addr{}).String() != row.Inside {
		t.Errorf("inside %q", row.Inside)
	}
}
