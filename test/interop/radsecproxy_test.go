package interop

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/sessiond/sessiond/internal/control/controltest"
	"github.com/sessiond/sessiond/internal/rig"
	"github.com/sessiond/sessiond/internal/testenv"
)

// radsecproxy describes a radsecproxy, for testdata/radsecproxy.conf.
type radsecproxy struct {
	Host              string
	Secret, NASSecret string // shared with sessiond, and with NASes

	Port   uint16             // port for the NASes' accounting
	Server netip.AddrPort     // sessiond
	Certs  *controltest.Certs // of the TLS connection to sessiond; nil for UDP
}

// radsecproxy starts a radsecproxy in front of sessiond, and waits for a line
// of its log.
func (w *world) radsecproxy(ready string, p radsecproxy) *rig.Program {
	w.t.Helper()
	p.Host, p.Secret, p.NASSecret = w.host.String(), rig.Secret, proxySecret
	conf := filepath.Join(w.t.TempDir(), "radsecproxy.conf")
	w.generate("testdata/radsecproxy.conf", conf, p)
	return w.program(ready, "radsecproxy", "-f", "-c", conf)
}

// viaRadsecproxy begins and ends a session of alice, and leaves bob online.
func (w *world) viaRadsecproxy(port uint16, client string) {
	w.t.Helper()
	from := "Packet-Src-IP-Address = " + w.host.String() // the only NAS it knows
	w.viaProxy(port, request("Start", "a-1", "alice", alice, from), request("Start", "b-1", "bob", bob, from))
	w.wants(alice, map[string]string{"user_name": "alice", "nas": rig.NAS, "client": client})
	w.block(alice)
	w.viaProxy(port, request("Interim-Update", "a-1", "alice", alice, from, "Acct-Input-Octets = 5"))
	w.wants(alice, map[string]string{"input_octets": "5"})
	w.viaProxy(port, request("Stop", "a-1", "alice", alice, from, "Acct-Session-Time = 2"))
	w.offline(alice)
	w.wants(bob, map[string]string{"user_name": "bob"})
}

// TestRadsecproxy_ACCT01: radsecproxy signs every request anew, and verifies every reply.
func TestRadsecproxy_ACCT01(t *testing.T) {
	w := start(t, testenv.Root|testenv.Radclient|testenv.Radsecproxy|testenv.Tshark)
	port := w.freePort().Port()
	c := w.capture(w.server)
	w.radsecproxy("listening for udp", radsecproxy{Port: port, Server: w.server})
	w.viaRadsecproxy(port, "bng1")
	c.judged(4, 0)
}

// TestRadsecproxyTLS_RSEC01: the same over TLS, with the client known by its certificate.
func TestRadsecproxyTLS_RSEC01(t *testing.T) {
	certs := controltest.MakeCerts(t)
	var tls netip.AddrPort
	w := startWith(t, testenv.Radclient|testenv.Radsecproxy, func(w *world, o *rig.Options) {
		tls = w.freePort()
		o.RadSec = fmt.Sprintf("listen: [%q], cert_file: %s, key_file: %s, client_ca_file: %s",
			tls, certs.Server, certs.ServerKey, certs.CA)
		o.Clients = []string{"name: proxy, certificate: {san: 127.0.0.1}"}
	})
	port := w.freePort().Port()
	w.radsecproxy("connection to sessiond", radsecproxy{Port: port, Server: tls, Certs: &certs})
	w.viaRadsecproxy(port, "proxy")
}
