package radiusacct_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"testing"
	"time"

	"layeh.com/radius/rfc2865"

	"github.com/sessiond/sessiond/internal/radiusacct"
	"github.com/sessiond/sessiond/internal/radiusacct/acctclient"
	"github.com/sessiond/sessiond/internal/radiusacct/radsec"
)

const radsecSecret = "radsec"

// tlsNAS is a RadSec client that sends given octets.
type tlsNAS struct {
	t    testing.TB
	conn *tls.Conn
}

func (n *tlsNAS) send(packets ...[]byte) {
	n.t.Helper()
	if _, err := n.conn.Write(bytes.Join(packets, nil)); err != nil {
		n.t.Fatal(err)
	}
}

// read returns the next packet.
func (n *tlsNAS) read() ([]byte, error) {
	n.conn.SetReadDeadline(time.Now().Add(patience))
	head := make([]byte, 4)
	if _, err := io.ReadFull(n.conn, head); err != nil {
		return nil, err
	}
	reply := append(head, make([]byte, int(binary.BigEndian.Uint16(head[2:]))-4)...)
	_, err := io.ReadFull(n.conn, reply[4:])
	return reply, err
}

// answered checks the reply to a request.
func (n *tlsNAS) answered(request []byte) []byte {
	n.t.Helper()
	reply, err := n.read()
	if err != nil {
		n.t.Fatalf("no reply: %v", err)
	}
	if !acctclient.Verify(reply, request, []byte(radsecSecret)) {
		n.t.Fatalf("reply %x does not answer %x", reply, request)
	}
	return reply
}

func (n *tlsNAS) ask(request []byte) []byte {
	n.t.Helper()
	n.send(request)
	return n.answered(request)
}

// silent checks that the connection is open and that nothing was answered.
func (n *tlsNAS) silent() {
	n.t.Helper()
	n.ask(statusServer(0xee, radsecSecret))
}

// closed checks that the server ends the connection.
func (n *tlsNAS) closed() {
	n.t.Helper()
	switch reply, err := n.read(); {
	case err == nil:
		n.t.Fatalf("answered %x, want the connection closed", reply)
	case isTimeout(err):
		n.t.Fatal("the connection stays")
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// secure signs a request with the secret of RadSec.
func secure(request []byte) []byte { return resign(request, radsecSecret) }

func TestRadSecClientByCertificate_RSEC01(t *testing.T) {
	stranger := newAuthority(t)
	pinned := stranger.issue("pinned.example")
	l := startRadSec(t, func(o *radiusacct.Options) {
		o.Clients = append(o.Clients,
			radiusacct.Client{Name: "ip", Certificate: radsec.Certificate{SAN: "192.0.2.7"}},
			radiusacct.Client{Name: "uri", Certificate: radsec.Certificate{SAN: "radius://bng/7"}},
			radiusacct.Client{Name: "pinned", Certificate: radsec.Certificate{Fingerprint: fingerprintOf(pinned)}},
			radiusacct.Client{Name: "both", Certificate: radsec.Certificate{SAN: "c.example", Fingerprint: radsec.Fingerprint{1}}},
		)
	})
	for _, c := range []struct {
		client string
		cert   tls.Certificate
	}{
		{"a", l.ca.issue("a.example")},
		{"b", l.ca.issue("B.Example")},
		{"ip", l.ca.issue("x.example", func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(192, 0, 2, 7)} })},
		{"uri", l.ca.issue("x.example", func(c *x509.Certificate) { c.URIs = []*url.URL{{Scheme: "radius", Host: "bng", Path: "/7"}} })},
		{"pinned", pinned},
	} {
		t.Run(c.client, func(t *testing.T) {
			conn, err := l.dial(l.config(c.cert))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			(&tlsNAS{t: t, conn: conn}).ask(secure(startRequest(1, "s")))
			events := l.recorder.recorded()
			if got := events[len(events)-1].Client; got != c.client {
				t.Errorf("client is %q", got)
			}
		})
	}
}

func TestRadSecRefused_RSEC01_RSEC02(t *testing.T) {
	l := startRadSec(t)
	expired := func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }
	serverOnly := func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }
	old := l.config(l.ca.issue("a.example"))
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	for _, c := range []struct {
		name   string
		config *tls.Config
		cause  string
	}{
		{"no certificate", l.config(), radsec.RefusedHandshake},
		{"TLS 1.1", old, radsec.RefusedHandshake},
		{"expired", l.config(l.ca.issue("a.example", expired)), radsec.RefusedHandshake},
		{"another CA", l.config(newAuthority(t).issue("a.example")), radsec.RefusedUnknown},
		{"for servers only", l.config(l.ca.issue("a.example", serverOnly)), radsec.RefusedUnknown},
		{"another name", l.config(l.ca.issue("z.example")), radsec.RefusedUnknown},
		{"wildcard", l.config(l.ca.issue("*.example")), radsec.RefusedUnknown},
		{"names of two clients", l.config(l.ca.issue("a.example", func(c *x509.Certificate) { c.DNSNames = append(c.DNSNames, "b.example") })), radsec.RefusedUnknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := l.observer.count("refused//" + c.cause)
			conn, err := l.dial(c.config)
			if err == nil { // in TLS 1.3 the client learns of it by its first read
				defer conn.Close()
				(&tlsNAS{t: t, conn: conn}).closed()
			}
			l.observer.wait(t, "refused//"+c.cause, before+1)
		})
	}
	t.Run("no TLS", func(t *testing.T) {
		conn, err := net.Dial("tcp", l.tls.String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.Write(secure(startRequest(1, "s")))
		if _, err := io.ReadAll(conn); isTimeout(err) {
			t.Error("the connection stays")
		}
	})
	if got := l.recorder.recorded(); len(got) != 0 {
		t.Errorf("recorded %+v", got)
	}
	l.connect(t, "a.example").silent()
}

func TestRadSecFraming_RSEC01(t *testing.T) {
	l := startRadSec(t)
	t.Run("several in a segment", func(t *testing.T) {
		n := l.connect(t, "a.example")
		var requests [][]byte
		for id := range 100 {
			requests = append(requests, secure(startRequest(byte(id), fmt.Sprint("s", id))))
		}
		n.send(requests...)
		waiting := make(map[byte][]byte)
		for _, r := range requests {
			waiting[r[1]] = r
		}
		for range requests { // in any order
			reply, err := n.read()
			if err != nil {
				t.Fatal(err)
			}
			if !acctclient.Verify(reply, waiting[reply[1]], []byte(radsecSecret)) {
				t.Fatalf("%x answers nothing", reply)
			}
			delete(waiting, reply[1])
		}
	})
	t.Run("one in many segments", func(t *testing.T) {
		n := l.connect(t, "a.example")
		request := secure(filled(4096))
		for part := range bytes.SplitSeq(request, nil) {
			n.send(part)
		}
		n.answered(request)
	})
	t.Run("cut anywhere", func(t *testing.T) {
		n := l.connect(t, "a.example")
		first, second := secure(startRequest(1, "x")), secure(startRequest(2, "y"))
		both := append(bytes.Clone(first), second...)
		for cut := 1; cut < len(both); cut += 7 {
			n.send(both[:cut])
			n.send(both[cut:])
			got, _ := n.read()
			other, err := n.read()
			if err != nil || got[1]+other[1] != 3 {
				t.Fatalf("cut at %d: %x, %x, %v", cut, got, other, err)
			}
		}
	})
}

func TestRadSecViolations_RSEC02(t *testing.T) {
	start := func(more ...[]byte) []byte { return startRequest(1, "s", more...) }
	length := func(n uint16) []byte {
		b := start()
		binary.BigEndian.PutUint16(b[2:], n)
		return b
	}
	cases := []struct {
		name    string
		result  string
		request []byte
		closes  bool
	}{
		{"length 0", radiusacct.ResultMalformed, length(0), true},
		{"length 19", radiusacct.ResultMalformed, length(19), true},
		{"length 4097", radiusacct.ResultMalformed, length(4097), true},
		{"attribute length 0", radiusacct.ResultMalformed, secure(start([]byte{25, 0})), true},
		{"attribute length 1", radiusacct.ResultMalformed, secure(start([]byte{25, 1, 9})), true},
		{"attribute overruns", radiusacct.ResultMalformed, secure(start([]byte{25, 9, 9})), true},
		{"authenticator", radiusacct.ResultBadAuthenticator, start(), true},
		{"message authenticator", radiusacct.ResultBadAuthenticator, secure(start(attribute(80, make([]byte, 16)))), true},
		{"status authenticator", radiusacct.ResultBadAuthenticator, statusServer(1, secret), true},
		{"code", radiusacct.ResultUnknownType, secure(packet(1, 1, radsecSecret)), false},
		{"answer", radiusacct.ResultUnknownType, secure(packet(5, 1, radsecSecret)), false},
		{"status without message authenticator", radiusacct.ResultBadAuthenticator, packet(12, 1, radsecSecret), false},
		{"value size", radiusacct.ResultMalformed, secure(start(attribute(8, []byte{1}))), false},
		{"two sessions", radiusacct.ResultMalformed, secure(start(attribute(44, []byte("t")))), false},
		{"no status type", radiusacct.ResultMalformed, secure(packet(4, 1, radsecSecret, attribute(44, []byte("s")))), false},
	}
	l := startRadSec(t)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			before, violations := l.observer.count(c.result), l.observer.count("closed/a/violation")
			n := l.connect(t, "a.example")
			n.send(c.request)
			if c.closes {
				n.closed()
				l.observer.wait(t, "closed/a/violation", violations+1)
			} else {
				n.silent()
			}
			l.observer.wait(t, c.result, before+1)
		})
	}
	if got := l.recorder.recorded(); len(got) != 0 {
		t.Errorf("recorded %+v", got)
	}
}

func TestRadSecWatchdog_RSEC03(t *testing.T) {
	l := startRadSec(t)
	n := l.connect(t, "a.example")
	for id := range 3 {
		if reply := n.ask(statusServer(byte(id), radsecSecret)); len(reply) != 20 {
			t.Errorf("reply is %x, want no attributes", reply)
		}
	}
}

func TestRadSecIdle_RSEC03(t *testing.T) {
	l := startRadSec(t, func(o *radiusacct.Options) { o.RadSec.IdleTimeout = 200 * time.Millisecond })
	t.Run("nothing", func(t *testing.T) {
		l.connect(t, "a.example").closed()
		l.observer.wait(t, "closed/a/idle", 1)
	})
	t.Run("trickle", func(t *testing.T) {
		n := l.connect(t, "a.example")
		pace := time.NewTicker(5 * time.Millisecond)
		defer pace.Stop()
		for _, octet := range secure(filled(4096)) { // until the server closes the connection
			if _, err := n.conn.Write([]byte{octet}); err != nil || l.observer.count("closed/a/idle") == 2 {
				break
			}
			<-pace.C
		}
		n.closed()
		l.observer.wait(t, "closed/a/idle", 2)
	})
}

func TestRadSecLimits_RSEC03_I10(t *testing.T) {
	l := startRadSec(t, func(o *radiusacct.Options) { o.RadSec.MaxConnections, o.RadSec.MaxConnectionsPerClient = 3, 2 })
	first, second := l.connect(t, "a.example"), l.connect(t, "a.example")
	first.silent()
	second.silent()
	t.Run("of a client", func(t *testing.T) {
		l.connect(t, "a.example").closed()
		l.observer.wait(t, "refused/a/limit", 1)
	})
	t.Run("in all", func(t *testing.T) {
		other := l.connect(t, "b.example")
		other.silent()
		l.connect(t, "b.example").closed()
		l.observer.wait(t, "refused/b/limit", 1)
		other.conn.Close()
		l.observer.wait(t, "closed/b/peer", 1)
	})
	first.conn.Close()
	l.observer.wait(t, "closed/a/peer", 1)
	l.connect(t, "a.example").silent()
}

// TestRadSecStrangersKeepNobodyOut_RSEC03_I10 has many sources, in networks of their own,
// that hold connections without a certificate and replace each one that is closed. Every
// client still gets all connections that it may have, and strangers only their share.
func TestRadSecStrangersKeepNobodyOut_RSEC03_I10(t *testing.T) {
	const most, perClient, sources = 64, 4, 60
	l := startRadSec(t, func(o *radiusacct.Options) {
		o.RadSec.MaxConnections, o.RadSec.MaxConnectionsPerClient = most, perClient
	})
	knock := func(i int) {
		t.Helper()
		from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1, byte(i%sources), 1)}}
		conn, err := from.Dial("tcp", l.tls.String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
	}
	for i := range 2 * sources {
		knock(i)
	}
	l.observer.wait(t, "refused//limit", 2*sources-most/4)
	for i := range perClient {
		for _, name := range []string{"a.example", "b.example"} {
			l.connect(t, name).silent()
			knock(i)
		}
	}
	l.connect(t, "a.example").closed() // it has its share already
	l.observer.wait(t, "refused/a/limit", 1)
}

// TestRadSecHandshakeEnds_RSEC03: a peer without a certificate in time is disconnected,
// however steadily it sends octets.
func TestRadSecHandshakeEnds_RSEC03(t *testing.T) {
	l := startRadSec(t, func(o *radiusacct.Options) { o.RadSec.HandshakeTimeout = 200 * time.Millisecond })
	for _, trickle := range []bool{false, true} {
		conn, err := net.Dial("tcp", l.tls.String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		over := make(chan error, 1)
		go func() {
			_, err := io.ReadAll(conn)
			over <- err
		}()
		conn.SetReadDeadline(time.Now().Add(patience))
		pace := time.NewTicker(20 * time.Millisecond)
		defer pace.Stop()
		for ended, hello := false, []byte{22, 3, 1, 2, 0}; !ended; { // a record of 512 octets begins
			select {
			case err := <-over:
				if ended = true; isTimeout(err) {
					t.Error("the connection stays")
				}
			case <-pace.C:
				if trickle {
					conn.Write(hello)
					hello = []byte{1}
				}
			}
		}
	}
	l.observer.wait(t, "refused//handshake", 2)
}

// TestRadSecMuteCostNothing_RSEC03: files are read only once a peer sends something.
func TestRadSecMuteCostNothing_RSEC03(t *testing.T) {
	l := startRadSec(t)
	if err := os.Remove(l.certFile); err != nil {
		t.Fatal(err)
	}
	mute, err := net.Dial("tcp", l.tls.String())
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	for range 3 {
		if conn, err := l.dial(l.config(l.ca.issue("a.example"))); err == nil {
			conn.Close()
			t.Error("a handshake without a certificate of the server's")
		}
	}
	l.observer.wait(t, "refused//handshake", 3)
	if n := l.observer.count("refused//handshake"); n != 3 {
		t.Errorf("%d handshakes failed, want those of the 3 that spoke", n)
	}
	mute.Close()
	l.observer.wait(t, "refused//handshake", 4)
}

// TestRadSecHandshakes_RSEC03 lets one source open connections and send nothing.
func TestRadSecHandshakes_RSEC03(t *testing.T) {
	l := startRadSec(t)
	var mute []net.Conn
	for range 12 {
		conn, err := net.Dial("tcp", l.tls.String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		mute = append(mute, conn)
	}
	l.observer.wait(t, "refused//limit", 4)
	elsewhere := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 3)}}
	conn, err := tls.DialWithDialer(elsewhere, "tcp", l.tls.String(), l.config(l.ca.issue("a.example")))
	if err != nil {
		t.Fatal("the mute keep others out: ", err)
	}
	defer conn.Close()
	(&tlsNAS{t: t, conn: conn}).silent()
	for _, c := range mute {
		c.Close()
	}
	l.observer.wait(t, "refused//handshake", 8)
	l.connect(t, "a.example").silent()
}

// TestRadSecStalled_RSEC03 has a client that sends requests and never reads a reply.
func TestRadSecStalled_RSEC03(t *testing.T) {
	l := startRadSec(t)
	n := l.connect(t, "a.example")
	var states [][]byte
	for range 15 {
		states = append(states, attribute(rfc2865.ProxyState_Type, make([]byte, 253)))
	}
	request := secure(startRequest(1, "s", states...))
	n.conn.SetWriteDeadline(time.Now().Add(patience))
	for {
		if _, err := n.conn.Write(request); err != nil {
			if isTimeout(err) {
				t.Error("the connection stays")
			}
			break
		}
	}
	l.observer.wait(t, "closed/a/stalled", 1)
}

func TestRadSecDuplicates_RSEC04(t *testing.T) {
	l := startRadSec(t)
	n := l.connect(t, "a.example")
	request := secure(startRequest(1, "s"))
	first := n.ask(request)
	if again := n.ask(request); !bytes.Equal(first, again) {
		t.Error("cached reply differs")
	}
	if got := len(l.recorder.recorded()); got != 1 {
		t.Errorf("%d events, want 1", got)
	}
	l.observer.wait(t, "a/start/duplicate", 1)
	n.ask(secure(startRequest(1, "other"))) // the same identifier for another request

	n.conn.Close()
	l.observer.wait(t, "closed/a/peer", 1)
	l.connect(t, "a.example").ask(request)
	events := l.recorder.recorded()
	if len(events) != 3 || events[2].SessionID != events[0].SessionID {
		t.Errorf("recorded %+v, want the resent request recorded again", events)
	}
}

func TestRadSecDuplicateInProgress_RSEC04(t *testing.T) {
	l := startRadSec(t)
	n := l.connect(t, "a.example")
	resume := l.recorder.stall()
	request := secure(startRequest(1, "s"))
	n.send(request, request)
	l.recorder.entered(t)
	l.observer.wait(t, "a/start/in_progress", 1)
	resume()
	n.answered(request)
	n.silent()
}

// TestRadSecIsPatient_RSEC03 sends more than may wait: a sender on a stream does not
// repeat, so nothing is dropped and the client is slowed down instead.
func TestRadSecIsPatient_RSEC03(t *testing.T) {
	l := startRadSec(t, func(o *radiusacct.Options) { o.Workers, o.QueueLength, o.BatchSize = 1, 4, 2 })
	n := l.connect(t, "a.example")
	resume := l.recorder.stall()
	for id := range 100 {
		n.send(secure(startRequest(byte(id), fmt.Sprint("s", id))))
	}
	l.recorder.entered(t)
	resume()
	for range 100 {
		if _, err := n.read(); err != nil {
			t.Fatal(err)
		}
	}
	if got := l.observer.count(radiusacct.ResultDropped); got != 0 {
		t.Errorf("%d dropped", got)
	}
}

func TestRadSecCertificatesReloaded_RSEC01(t *testing.T) {
	l := startRadSec(t)
	before := l.connect(t, "a.example")
	before.silent()
	renewed := newAuthority(t)
	writeCertificate(t, renewed.issue("server.example"), l.certFile, l.keyFile)
	writeFile(t, l.caFile, renewed.pem)
	if conn, err := l.dial(l.config(l.ca.issue("a.example"))); err == nil {
		conn.Close()
		t.Error("the old certificate is still in use")
	}
	l.ca = renewed
	l.connect(t, "a.example").silent()
	before.silent() // its certificate was valid when the connection began

	writeFile(t, l.certFile, []byte("half written"))
	if conn, err := l.dial(l.config(l.ca.issue("a.example"))); err == nil {
		conn.Close()
		t.Error("connected without a certificate of the server")
	}
	before.silent()
}

func TestRadSecClientsReloaded_ACCT30(t *testing.T) {
	l := startRadSec(t)
	a, b := l.connect(t, "a.example"), l.connect(t, "b.example")
	request := secure(startRequest(1, "s"))
	a.ask(request)
	b.silent()
	left := clientA()
	left.Certificate.SAN = "a.example"
	if err := l.SetClients([]radiusacct.Client{left}); err != nil {
		t.Fatal(err)
	}
	b.closed()
	l.observer.wait(t, "closed/b/revoked", 1)
	a.ask(request)
	if got := len(l.recorder.recorded()); got != 1 {
		t.Errorf("%d events, want the connection's cache to survive the reload", got)
	}
}

// TestRadSecShutdownFinishes_I2 stops the server during a Record call.
func TestRadSecShutdownFinishes_I2(t *testing.T) {
	l := startRadSec(t)
	n, idle := l.connect(t, "a.example"), l.connect(t, "b.example")
	idle.silent()
	resume := l.recorder.stall()
	request := secure(startRequest(1, "s"))
	n.send(request)
	l.recorder.entered(t)
	stopped := make(chan struct{})
	go func() { l.stop(); close(stopped) }()
	for {
		conn, err := net.Dial("tcp", l.tls.String())
		if err != nil {
			break // the listener is closed
		}
		conn.Close()
	}
	resume()
	n.answered(request)
	n.closed()
	idle.closed()
	<-stopped
	l.observer.wait(t, "closed/a/shutdown", 1)
}

func TestRadSecShutdownGivesUp(t *testing.T) {
	l := startRadSec(t, func(o *radiusacct.Options) { o.Grace, o.QueueLength, o.Workers = time.Millisecond, 1, 1 })
	n := l.connect(t, "a.example")
	defer l.recorder.stall()()
	for id := range 8 { // more than may wait
		n.send(secure(startRequest(byte(id), "s")))
	}
	l.recorder.entered(t)
	l.stop() // returns although the database never answers
}

// TestRadSecOnly has clients without an address or secret of their own.
func TestRadSecOnly(t *testing.T) {
	l := startRadSec(t, func(o *radiusacct.Options) {
		for i := range o.Clients {
			o.Clients[i].Prefix, o.Clients[i].Secret = netip.Prefix{}, nil
		}
	})
	l.connect(t, "a.example").ask(secure(startRequest(1, "s")))
	newNAS(t, "127.0.0.2", l.addr).send(startRequest(2, "s"))
	l.observer.wait(t, radiusacct.ResultUnknownClient, 1)
}
