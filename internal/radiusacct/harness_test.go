package radiusacct_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2866"

	"github.com/sessiond/sessiond/internal/radiusacct"
	"github.com/sessiond/sessiond/internal/radiusacct/acctclient"
	"github.com/sessiond/sessiond/internal/subscriber"
)

const (
	secret   = "s3cret-of-a"
	patience = 5 * time.Second
)

// recorder is a Recorder in memory that can be made to stall and fail.
type recorder struct {
	mu     sync.Mutex
	events []subscriber.Event
	calls  int
	err    error
	gate   chan struct{} // if set, Record waits until it is closed
	inside chan struct{} // gets a token for each Record call begun while gate is set
}

func (r *recorder) Record(ctx context.Context, events []subscriber.Event) []error {
	r.mu.Lock()
	gate := r.gate
	r.mu.Unlock()
	if gate != nil {
		select {
		case r.inside <- struct{}{}:
		default:
		}
		select {
		case <-gate:
		case <-ctx.Done():
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls++
	errs := make([]error, len(events))
	for i, ev := range events {
		if errs[i] = r.err; r.err == nil {
			errs[i] = ctx.Err()
		}
		if errs[i] == nil {
			r.events = append(r.events, ev)
		}
	}
	return errs
}

func (r *recorder) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
}

// stall makes Record wait until resume is called.
func (r *recorder) stall() (resume func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	gate := make(chan struct{})
	r.gate, r.inside = gate, make(chan struct{}, 1024)
	return sync.OnceFunc(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.gate = nil
		close(gate)
	})
}

// entered waits until a Record call stalls.
func (r *recorder) entered(t testing.TB) {
	t.Helper()
	select {
	case <-r.inside:
	case <-time.After(patience):
		t.Fatal("nothing reached the database")
	}
}

func (r *recorder) recorded() []subscriber.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]subscriber.Event(nil), r.events...)
}

// observer counts, and lets tests wait for counts.
type observer struct {
	mu     sync.Mutex
	counts map[string]int
	change chan struct{}

	surprises []string // counted, although not in Outcomes
}

func newObserver() *observer {
	return &observer{counts: make(map[string]int), change: make(chan struct{})}
}

func (o *observer) Request(client, kind, result string, took time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.foretoldLocked(foretold(client, kind, result), client+"/"+kind+"/"+result)
	o.counts[client+"/"+kind+"/"+result]++
	o.counts[result]++
	close(o.change)
	o.change = make(chan struct{})
}

func (o *observer) ConnectionOpened(client string) { o.note("opened/"+client, true) }
func (o *observer) ConnectionClosed(client, cause string) {
	o.note("closed/"+client+"/"+cause, closingForetold(cause))
}
func (o *observer) ConnectionRefused(client, cause string) {
	o.note("refused/"+client+"/"+cause, refusalForetold(client, cause))
}

// foretoldLocked keeps the name of a count that is not in Outcomes.
func (o *observer) foretoldLocked(foretold bool, name string) {
	if !foretold {
		o.surprises = append(o.surprises, name)
	}
}

func (o *observer) note(name string, foretold bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.foretoldLocked(foretold, name)
	o.counts[name]++
	close(o.change)
	o.change = make(chan struct{})
}

func (o *observer) count(name string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.counts[name]
}

// wait waits until a count reaches n.
func (o *observer) wait(t testing.TB, name string, n int) {
	t.Helper()
	deadline := time.After(patience)
	for {
		o.mu.Lock()
		got, change := o.counts[name], o.change
		o.mu.Unlock()
		if got >= n {
			return
		}
		select {
		case <-change:
		case <-deadline:
			t.Fatalf("%s counted %d, want %d", name, got, n)
		}
	}
}

// clock is the real time, shifted.
type clock struct {
	mu    sync.Mutex
	shift time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.shift)
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shift += d
}

// lab is a running server with its surroundings.
type lab struct {
	*radiusacct.Server
	addr     netip.AddrPort
	recorder *recorder
	observer *observer
	clock    *clock
	stop     func() // ends Run and waits for it
}

func clientA() radiusacct.Client {
	return radiusacct.Client{Name: "a", Prefix: netip.MustParsePrefix("127.0.0.0/24"), Secret: []byte(secret)}
}

// start runs a server for client "a" (127.0.0.0/24) and client "b" (127.0.0.9/32).
func start(t testing.TB, adjust ...func(*radiusacct.Options)) *lab {
	t.Helper()
	l := &lab{recorder: &recorder{}, observer: newObserver(), clock: &clock{}}
	o := radiusacct.Options{
		Listen: []string{"127.0.0.1:0"},
		Clients: []radiusacct.Client{
			clientA(),
			{Name: "b", Prefix: netip.MustParsePrefix("127.0.0.9/32"), Secret: []byte("secret-of-b")},
		},
		Recorder: l.recorder,
		Observer: l.observer,
		Now:      l.clock.now,

		StatusRate: 1 << 20, // tests probe with Status-Server
	}
	for _, f := range adjust {
		f(&o)
	}
	var err error
	if l.Server, err = radiusacct.New(o); err != nil {
		t.Fatal(err)
	}
	l.addr = l.Addrs()[0]
	t.Cleanup(func() { // after the server has stopped
		for _, name := range l.observer.surprises {
			t.Errorf("%s is counted, and there is no series at 0 of it", name)
		}
	})
	l.run(t)
	return l
}

func (l *lab) run(t testing.TB) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	l.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(l.stop)
}

// nas is a bare UDP socket of a NAS.
type nas struct {
	t    testing.TB
	conn *net.UDPConn
	to   netip.AddrPort
}

func newNAS(t testing.TB, from string, to netip.AddrPort) *nas {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 0)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &nas{t: t, conn: conn, to: to}
}

func (n *nas) send(b []byte) {
	n.t.Helper()
	if _, err := n.conn.WriteToUDPAddrPort(b, n.to); err != nil {
		n.t.Fatal(err)
	}
}

// receive returns the next datagram and its source.
func (n *nas) receive() ([]byte, netip.AddrPort) {
	n.t.Helper()
	buf := make([]byte, 8192)
	n.conn.SetReadDeadline(time.Now().Add(patience))
	size, from, err := n.conn.ReadFromUDPAddrPort(buf)
	if err != nil {
		n.t.Fatalf("no reply: %v", err)
	}
	return buf[:size], netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
}

// ask sends a request and checks that the reply is authentic under the secret.
func (n *nas) ask(request []byte, secret string) []byte {
	n.t.Helper()
	n.send(request)
	reply, from := n.receive()
	if from != n.to {
		n.t.Errorf("reply came from %v, asked was %v", from, n.to)
	}
	if !acctclient.Verify(reply, request, []byte(secret)) {
		n.t.Fatalf("reply %x does not answer %x", reply, request)
	}
	return reply
}

// silent checks that nothing is answered before a probe that it sends now.
func (n *nas) silent() {
	n.t.Helper()
	probe := statusServer(0xee, secret)
	n.send(probe)
	reply, _ := n.receive()
	if !acctclient.Verify(reply, probe, []byte(secret)) {
		n.t.Fatalf("answered %x, want silence", reply)
	}
}

// attribute encodes one attribute.
func attribute(kind radius.Type, value []byte) []byte {
	return append([]byte{byte(kind), byte(2 + len(value))}, value...)
}

func number(kind radius.Type, n uint32) []byte {
	return attribute(kind, radius.NewInteger(n))
}

// packet builds and signs a packet from raw attributes, without checks.
func packet(code radius.Code, id byte, secret string, attributes ...[]byte) []byte {
	b := append([]byte{byte(code), id, 0, 0}, make([]byte, 16)...)
	b = append(b, bytes.Join(attributes, nil)...)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	return resign(b, secret)
}

// resign sets the Request Authenticator of RFC 2866 in a packet.
func resign(b []byte, secret string) []byte {
	clear(b[4:20])
	sum := md5.Sum(append(bytes.Clone(b), secret...))
	copy(b[4:20], sum[:])
	return b
}

// accounting returns a signed Accounting-Request of a session; more is appended.
func accounting(id byte, status rfc2866.AcctStatusType, session string, more ...[]byte) []byte {
	attributes := [][]byte{
		number(rfc2866.AcctStatusType_Type, uint32(status)),
		attribute(rfc2866.AcctSessionID_Type, []byte(session)),
		attribute(rfc2865.UserName_Type, []byte("alice")),
		attribute(rfc2865.NASIdentifier_Type, []byte("bng1")),
		attribute(rfc2865.FramedIPAddress_Type, []byte{100, 64, 0, 7}),
	}
	return packet(radius.CodeAccountingRequest, id, secret, append(attributes, more...)...)
}

func startRequest(id byte, session string, more ...[]byte) []byte {
	return accounting(id, rfc2866.AcctStatusType_Value_Start, session, more...)
}

func statusServer(id byte, secret string) []byte {
	p := &radius.Packet{Code: radius.CodeStatusServer, Identifier: id, Authenticator: [16]byte{1, 2, 3, id}}
	b, err := acctclient.Encode(p, []byte(secret), true)
	if err != nil {
		panic(fmt.Sprintf("radiusacct_test: %v", err))
	}
	return b
}
