package control_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/control"
	"github.com/sessiond/sessiond/internal/control/controltest"
	"github.com/sessiond/sessiond/internal/inspect"
)

// ledger is an Observer that counts its calls.
type ledger struct {
	mu     sync.Mutex
	counts map[string]int
	told   chan struct{} // closed at the next change
}

func newLedger() *ledger { return &ledger{counts: map[string]int{}, told: make(chan struct{})} }

func (l *ledger) note(words ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts[strings.Join(words, " ")]++
	close(l.told)
	l.told = make(chan struct{})
}

func (l *ledger) ConnectionOpened()                    { l.note("opened") }
func (l *ledger) ConnectionClosed(cause string)        { l.note("closed", cause) }
func (l *ledger) ConnectionRefused(cause string)       { l.note("refused", cause) }
func (l *ledger) StreamOpened(method string)           { l.note(method, "opened") }
func (l *ledger) StreamEnded(method, end string)       { l.note(method, end) }
func (l *ledger) StreamRefused(method, cause string)   { l.note(method, "refused", cause) }
func (l *ledger) FilesUsable(kind string, usable bool) { l.note(kind, fmt.Sprint(usable)) }

// await waits until a call was counted this often.
func (l *ledger) await(t *testing.T, what string, times int) {
	t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		l.mu.Lock()
		got, told := l.counts[what], l.told
		l.mu.Unlock()
		if got >= times {
			return
		}
		select {
		case <-told:
		case <-timeout:
			t.Fatalf("%q was told %d times, not %d: %v", what, got, times, l.counts)
		}
	}
}

// dialFrom connects from a given address of this machine.
func dialFrom(t *testing.T, source, address string) *grpc.ClientConn {
	t.Helper()
	return dial(t, address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
			return d.DialContext(ctx, "tcp", address)
		}))
}

// watch opens a watch and waits until it is served or refused.
func watch(ctx context.Context, conn *grpc.ClientConn) (pb.SubscriberService_WatchSubscribersClient, error) {
	stream, err := pb.NewSubscriberServiceClient(conn).WatchSubscribers(ctx, &pb.WatchSubscribersRequest{})
	if err != nil {
		return nil, err
	}
	if md, err := stream.Header(); err != nil || md != nil {
		return stream, err
	}
	_, err = stream.Recv() // refused before its header
	return nil, err
}

func limited(l control.Limits, o control.Observer) func(*control.Options) {
	return func(options *control.Options) { options.Limits, options.Observer = l, o }
}

// TestStreamsOfAPeerAreBounded_I10: a peer beyond its limit gets an error with
// advice, and no other peer is affected. A stream that ends makes room for
// another.
func TestStreamsOfAPeerAreBounded_I10(t *testing.T) {
	t.Parallel()
	told := newLedger()
	server := controltest.Serve(t, controltest.Scene(), limited(control.Limits{Streams: 3, StreamsPerPeer: 2}, told))
	greedy, modest, late := dialFrom(t, "127.0.0.1", server.Address), dialFrom(t, "127.0.0.2", server.Address), dialFrom(t, "127.0.0.3", server.Address)
	first, end := context.WithCancel(t.Context())
	for _, ctx := range []context.Context{first, t.Context()} {
		if _, err := watch(ctx, greedy); err != nil {
			t.Fatal(err)
		}
	}
	refused := func(conn *grpc.ClientConn, key string) {
		t.Helper()
		_, err := watch(t.Context(), conn)
		if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "raise "+key) {
			t.Errorf("one too many: %v", err)
		}
	}
	refused(greedy, "grpc.max_streams_per_peer")
	if _, err := watch(t.Context(), modest); err != nil {
		t.Errorf("another peer: %v", err)
	}
	refused(late, "grpc.max_streams")
	if _, err := pb.NewControlServiceClient(greedy).GetStatus(t.Context(), &pb.GetStatusRequest{}); err != nil {
		t.Errorf("a call that is no stream: %v", err)
	}
	end()
	told.await(t, "WatchSubscribers canceled", 1)
	if _, err := watch(t.Context(), late); err != nil {
		t.Errorf("after one ended: %v", err)
	}
	told.await(t, "WatchSubscribers refused peer_limit", 1)
	told.await(t, "WatchSubscribers refused limit", 1)
}

// TestConnectionsOfAPeerAreBounded_I10 does the same for connections.
func TestConnectionsOfAPeerAreBounded_I10(t *testing.T) {
	t.Parallel()
	told := newLedger()
	server := controltest.Serve(t, controltest.Scene(), limited(control.Limits{Connections: 3, ConnectionsPerPeer: 2}, told))
	ask := func(conn *grpc.ClientConn) error {
		_, err := pb.NewControlServiceClient(conn).GetStatus(t.Context(), &pb.GetStatusRequest{})
		return err
	}
	var open []*grpc.ClientConn
	for i, source := range []string{"127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.2", "127.0.0.3"} {
		conn := dialFrom(t, source, server.Address)
		err := ask(conn)
		if want := i != 2 && i != 4; (err == nil) != want {
			t.Errorf("connection %d from %s: %v", i, source, err)
		}
		open = append(open, conn)
	}
	told.await(t, "refused peer_limit", 1)
	told.await(t, "refused limit", 1)
	if err := open[0].Close(); err != nil {
		t.Fatal(err)
	}
	told.await(t, "closed ended", 1)
	if err := ask(dialFrom(t, "127.0.0.1", server.Address)); err != nil {
		t.Errorf("after one was closed: %v", err)
	}
}

// TestStalledStreamIsEnded_I10: a reader that takes nothing loses its stream,
// with a reason that it can still read. If it does not take the reason either,
// it loses its connection.
func TestStalledStreamIsEnded_I10(t *testing.T) {
	t.Parallel()
	for method, stall := range map[string]func(*testing.T, *controltest.Backend, *grpc.ClientConn) (end func() error){
		"WatchSubscribers": func(t *testing.T, b *controltest.Backend, conn *grpc.ClientConn) func() error {
			stream, err := watch(t.Context(), conn)
			if err != nil {
				t.Fatal(err)
			}
			for range 2000 {
				b.Publish(inspect.Event{Kind: inspect.EventUpdated, Subscriber: b.Online[0]})
			}
			return func() error { _, err := stream.Recv(); return err }
		},
		"ListSessions": func(t *testing.T, b *controltest.Backend, conn *grpc.ClientConn) func() error {
			stream, err := pb.NewSessionServiceClient(conn).ListSessions(t.Context(), &pb.ListSessionsRequest{})
			if err != nil {
				t.Fatal(err)
			}
			return func() error { _, err := stream.Recv(); return err }
		},
	} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			b := controltest.Scene()
			b.Broadcaster = inspect.NewBroadcaster(inspect.BroadcasterOptions{Octets: 8 << 20})
			b.Flows = slices.Repeat(b.Flows, 5000)
			told := newLedger()
			server := controltest.Serve(t, b, limited(control.Limits{StreamsPerPeer: 1, StallTimeout: 2 * time.Second}, told))
			stall(t, b, dialFrom(t, "127.0.0.2", server.Address))
			told.await(t, "closed stalled", 1)
			conn := dial(t, server.Address)
			next := stall(t, b, conn)
			told.await(t, method+" stalled", 2)
			var err error
			for err == nil {
				err = next()
			}
			if status.Code(err) != codes.Aborted || !strings.Contains(err.Error(), "stall_timeout") {
				t.Errorf("the stream ended with %v", err)
			}
			if _, err := watch(t.Context(), conn); err != nil {
				t.Errorf("a stream after the stalled one: %v", err)
			}
		})
	}
}

// TestReplyThatIsNotTaken_I10: a client that accepts no reply loses its
// connection. A client that takes its replies, however many, keeps it, and so
// does one that waits between calls.
func TestReplyThatIsNotTaken_I10(t *testing.T) {
	t.Parallel()
	told := newLedger()
	server := controltest.Serve(t, controltest.Scene(), limited(control.Limits{StallTimeout: time.Second}, told))
	patient := pb.NewControlServiceClient(dial(t, server.Address))
	if _, err := patient.GetStatus(t.Context(), &pb.GetStatusRequest{}); err != nil {
		t.Fatal(err)
	}
	frames, headers := rawCall(t, server.Address, "/sessiond.v1.ControlService/GetStatus")
	err := errors.Join(
		frames.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}),
		frames.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: headers, EndHeaders: true}),
		frames.WriteData(1, true, make([]byte, 5)),
	)
	if err != nil {
		t.Fatal(err)
	}
	told.await(t, "closed stalled", 1)
	if _, err := patient.GetStatus(t.Context(), &pb.GetStatusRequest{}); err != nil {
		t.Error(err)
	}
	told.mu.Lock()
	defer told.mu.Unlock()
	if told.counts["opened"] != 2 {
		t.Errorf("who takes its replies had to dial again: %v", told.counts)
	}
}

// rawCall connects, and returns a reader and writer of frames, and the header block of a call.
func rawCall(t *testing.T, address, method string) (*http2.Framer, []byte) {
	t.Helper()
	raw, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = raw.Close() })
	if err := raw.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(raw, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	var headers bytes.Buffer
	encoder := hpack.NewEncoder(&headers)
	encoder.SetMaxDynamicTableSize(0) // or the block is good for one call
	for _, f := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", method}, {":authority", "x"},
		{"content-type", "application/grpc"}, {"te", "trailers"},
	} {
		if err := encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			t.Fatal(err)
		}
	}
	return http2.NewFramer(raw, raw), headers.Bytes()
}

// TestCallsTakenBackArePaced_I10: a peer that resets calls without end, for which gRPC would
// keep more and more memory, is read from slowly; a peer that resets some is not.
func TestCallsTakenBackArePaced_I10(t *testing.T) {
	t.Parallel()
	server := controltest.Serve(t, controltest.Scene(), limited(control.Limits{}, newLedger()))
	frames, headers := rawCall(t, server.Address, "/sessiond.v1.SubscriberService/WatchSubscribers")
	if err := frames.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	next := uint32(1)
	takeBack := func(calls int) time.Duration {
		t.Helper()
		began := time.Now()
		for range calls {
			err := errors.Join(
				frames.WriteHeaders(http2.HeadersFrameParam{StreamID: next, BlockFragment: headers, EndHeaders: true}),
				frames.WriteRSTStream(next, http2.ErrCodeCancel),
			)
			if err != nil {
				t.Fatal(err)
			}
			next += 2
		}
		if err := frames.WritePing(false, [8]byte{}); err != nil {
			t.Fatal(err)
		}
		for {
			f, err := frames.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			if ping, ok := f.(*http2.PingFrame); ok && ping.IsAck() {
				return time.Since(began)
			}
		}
	}
	if took := takeBack(50); took > time.Second {
		t.Errorf("50 calls that are taken back keep the connection for %v", took)
	}
	if took := takeBack(350); took < 2*time.Second {
		t.Errorf("350 calls that are taken back are read within %v", took)
	}
	if _, err := pb.NewControlServiceClient(dial(t, server.Address)).GetStatus(t.Context(), &pb.GetStatusRequest{}); err != nil {
		t.Error(err)
	}
}

// silentListener returns connections whose peer takes nothing from the network.
type silentListener struct{ net.Listener }

func (l silentListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if tcp, ok := c.(*net.TCPConn); ok {
		err = tcp.SetWriteBuffer(4 << 10)
	}
	return c, err
}

// TestConnectionThatTakesNothingIsEnded_I10: a connection whose peer reads
// nothing is closed by its write deadline.
func TestConnectionThatTakesNothingIsEnded_I10(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := controltest.Scene()
	b.Flows = slices.Repeat(b.Flows, 50_000)
	told := newLedger()
	server := controltest.Serve(t, b, func(o *control.Options) {
		o.Listener, o.Limits, o.Observer = silentListener{l}, control.Limits{StallTimeout: time.Second}, told
	})
	deaf := make(chan struct{})
	conn := dial(t, server.Address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithInitialWindowSize(1<<28), grpc.WithInitialConnWindowSize(1<<28),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			var d net.Dialer
			c, err := d.DialContext(ctx, "tcp", address)
			if err != nil {
				return nil, err
			}
			return &deafConn{Conn: c, deaf: deaf, closed: make(chan struct{})}, c.(*net.TCPConn).SetReadBuffer(4 << 10)
		}))
	stream, err := pb.NewSessionServiceClient(conn).ListSessions(t.Context(), &pb.ListSessionsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	close(deaf)
	told.await(t, "closed stalled", 1)
}

// deafConn reads nothing once deaf is closed.
type deafConn struct {
	net.Conn
	deaf   chan struct{}
	closed chan struct{}
}

func (c *deafConn) Read(p []byte) (int, error) {
	select {
	case <-c.deaf:
		<-c.closed
		return 0, net.ErrClosed
	default:
		return c.Conn.Read(p[:min(len(p), 512)])
	}
}

func (c *deafConn) Close() error {
	err := c.Conn.Close()
	if err == nil {
		close(c.closed)
	}
	return err
}

// TestDeadPeerIsFound_I10: the watch of a peer that gives no sign of life ends, while that of one
// that is only silent goes on.
func TestDeadPeerIsFound_I10(t *testing.T) {
	t.Parallel()
	told, b := newLedger(), controltest.Scene()
	server := controltest.Serve(t, b, limited(control.Limits{SilenceTimeout: time.Second}, told))
	stream, err := watch(t.Context(), dial(t, server.Address))
	if err != nil {
		t.Fatal(err)
	}
	frames, headers := rawCall(t, server.Address, "/sessiond.v1.SubscriberService/WatchSubscribers")
	err = errors.Join( // and it reads nothing, so it answers no ping
		frames.WriteSettings(),
		frames.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: headers, EndHeaders: true}),
		frames.WriteData(1, true, make([]byte, 5)),
	)
	if err != nil {
		t.Fatal(err)
	}
	told.await(t, "WatchSubscribers opened", 2)
	told.await(t, "WatchSubscribers canceled", 1)
	told.await(t, "closed ended", 1)
	b.Publish(inspect.Event{Kind: inspect.EventCut, Subscriber: b.Online[0]})
	if e := next(t, stream); e.GetKind() != pb.EventKind_EVENT_KIND_CUT {
		t.Errorf("the silent watch got %v", e)
	}
}
