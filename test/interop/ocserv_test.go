package interop

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/control/controltest"
	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/rig"
	"github.com/sessiond/sessiond/internal/testenv"
)

// ocserv describes an ocserv, for the templates in testdata.
type ocserv struct {
	Dir, NAS, Secret string
	Server           netip.AddrPort // sessiond, as seen from ocserv's namespace
	Certs            controltest.Certs
	User, Hash       string
}

// userHash is crypt(3) of userPassword.
const (
	userPassword = "secret"
	userHash     = "$5$interop$lo9YV/7ot0ElmMLK0iho6knFi2lXwG1bifhkj4GXLw4"
)

// ocserv starts a VPN server in a network namespace of its own. All processes in its
// process namespace end with it.
func (w *world) ocserv(o ocserv) *rig.Program {
	w.t.Helper()
	o.Dir = w.t.TempDir()
	for from, to := range map[string]string{
		"ocserv.conf": "ocserv.conf", "radcli.conf": "radcli.conf", "radcli-servers": "servers", "ocserv-passwd": "passwd",
	} {
		w.generate(filepath.Join("testdata", from), filepath.Join(o.Dir, to), o)
	}
	return w.program("initialized ocserv", "unshare", "--net", "--pid", "--fork", "--kill-child", "--",
		"sh", "-c", "ip link set lo up && exec ocserv -f -d 2 -c "+filepath.Join(o.Dir, "ocserv.conf"))
}

// login dials in from the server's own namespace, and waits until connected.
func (w *world) login(server *rig.Program, user string, certs controltest.Certs) *rig.Program {
	w.t.Helper()
	password := filepath.Join(w.t.TempDir(), "password")
	w.must(os.WriteFile(password, []byte(userPassword+"\n"), 0o600))
	dial := fmt.Sprintf("exec openconnect -u %s --passwd-on-stdin --servercert pin-sha256:%s --script true --no-dtls 127.0.0.1 <%s",
		user, w.pin(certs.Server), password)
	return w.program("Configured as", "nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", server.PID()), "sh", "-c", dial)
}

// pin returns the digest of the public key by which openconnect knows the server.
func (w *world) pin(certFile string) string {
	w.t.Helper()
	text, err := os.ReadFile(certFile)
	w.must(err)
	block, _ := pem.Decode(text)
	cert, err := x509.ParseCertificate(block.Bytes)
	w.must(err)
	digest := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(digest[:])
}

// bridge opens a RADIUS port in the namespace of a program, and forwards requests to
// sessiond and the replies back, until the test ends.
func (w *world) bridge(p *rig.Program, port netip.AddrPort) {
	w.t.Helper()
	namespace, err := netlab.OfProcess(p.PID())
	w.must(err)
	defer namespace.Close()
	inner, err := namespace.ListenUDP(port)
	w.must(err)
	var carrying sync.WaitGroup
	carrying.Go(func() { w.carry(inner) })
	w.t.Cleanup(func() { inner.Close(); carrying.Wait() })
}

// carry serves one request after the other, because a NAS waits for its reply.
func (w *world) carry(inner *net.UDPConn) {
	buf := make([]byte, 4096)
	for {
		n, from, err := inner.ReadFromUDPAddrPort(buf)
		if err != nil {
			return // closed
		}
		if reply, err := w.ask(buf[:n]); err == nil {
			_, _ = inner.WriteToUDPAddrPort(reply, from)
		}
	}
}

// ask sends sessiond a datagram from the test's host, and returns the reply.
func (w *world) ask(request []byte) ([]byte, error) {
	conn, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(w.at(0)), net.UDPAddrFromAddrPort(w.server))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(3 * time.Second))
	if _, err := conn.Write(request); err != nil {
		return nil, err
	}
	buf := make([]byte, 4096)
	n, err := conn.Read(buf)
	return buf[:n], err
}

// TestOcserv_SES05 has a real access server. Its Start has no Framed-IP-Address, its
// Interim-Update has; the user logs out, and is offline.
func TestOcserv_SES05(t *testing.T) {
	w := start(t, testenv.Root|testenv.Ocserv|testenv.Tshark)
	certs := controltest.MakeCerts(t)
	inside := netip.MustParseAddr("100.64.9.2") // the first of ocserv.conf
	c := w.capture(w.server)
	port := netip.MustParseAddrPort("127.0.0.1:1813")
	server := w.ocserv(ocserv{
		NAS: "vpn-1", Secret: rig.Secret, Server: port, Certs: certs, User: "alice", Hash: userHash,
	})
	w.bridge(server, port)

	client := w.login(server, "alice", certs)
	w.soon("the Start to arrive", func() bool { return w.counted("start", "ok") == 1 })
	w.offline(inside)
	w.soon("the Interim-Update to arrive", func() bool { return len(w.record(inside)) > 0 })
	w.wants(inside, map[string]string{"user_name": "alice", "nas": "vpn-1", "calling_station_id": "127.0.0.1"})
	if b := w.block(inside); b.UserName != "alice" {
		t.Errorf("the binding is %+v, want alice's", b)
	}

	w.must(client.Stop())
	w.soon("alice to be offline", func() bool { return len(w.record(inside)) == 0 })
	if n := w.counted("stop", "ok"); n != 1 {
		t.Errorf("%d Stops arrived, want 1", n)
	}
	c.judged(2+w.counted("interim", "ok"), 0)
}
