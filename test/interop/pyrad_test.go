package interop

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/sessiond/sessiond/internal/rig"
	"github.com/sessiond/sessiond/internal/testenv"
)

// attributes is a request with pyrad's attribute names.
type attributes map[string]any

// pyrad sends accounting requests with pyrad, and checks that it accepts the reply to each.
func (w *world) pyrad(requests ...attributes) {
	w.t.Helper()
	list, err := json.Marshal(requests)
	w.must(err)
	// Debian's own Python, for which the package is built.
	cmd := exec.CommandContext(w.ctx, "/usr/bin/python3", "testdata/account.py",
		w.server.Addr().String(), fmt.Sprint(w.server.Port()), rig.Secret)
	cmd.Stdin = strings.NewReader(string(list))
	if got, want := w.output(cmd), strings.Repeat("answered\n", len(requests)); got != want {
		w.t.Fatalf("pyrad printed:\n%s", got)
	}
}

// TestPyrad_ACCT01_ACCT21_SES15 has a NAS that sends few attributes. Its Accounting-On has
// no Acct-Session-Id.
func TestPyrad_ACCT01_ACCT21_SES15(t *testing.T) {
	w := start(t, testenv.Root|testenv.Pyrad|testenv.Tshark)
	c := w.capture(w.server)
	of := func(status, session string, more attributes) attributes {
		a := attributes{
			"Acct-Status-Type": status, "Acct-Session-Id": session, "User-Name": "user of " + session,
			"NAS-IP-Address": "192.0.2.9",
		}
		for name, value := range more {
			a[name] = value
		}
		return a
	}
	w.pyrad(
		of("Start", "a-1", attributes{"Framed-IP-Address": alice.String()}),
		of("Start", "b-1", attributes{}), // the address is not known yet (SES-05)
		of("Interim-Update", "b-1", attributes{"Framed-IP-Address": bob.String(), "Acct-Session-Time": 1}),
		of("Interim-Update", "c-1", attributes{"Framed-IP-Address": carol.String(), "Acct-Session-Time": 60}), // its Start was lost (SES-03)
		of("Interim-Update", "a-1", attributes{"Acct-Input-Octets": 77}),
	)
	w.wants(alice, map[string]string{"nas": "192.0.2.9", "nas_address": "192.0.2.9", "input_octets": "77"})
	w.wants(bob, map[string]string{"user_name": "user of b-1"})
	w.wants(carol, map[string]string{"user_name": "user of c-1"})
	w.block(alice)
	w.block(bob)
	w.block(carol)

	w.pyrad(of("Stop", "a-1", attributes{"Acct-Session-Time": 3}))
	w.offline(alice)
	w.pyrad(attributes{"Acct-Status-Type": "Accounting-On", "NAS-IP-Address": "192.0.2.9"})
	w.soon("everybody to be offline", func() bool { return w.records() == 0 })
	c.judged(7, 0)
}
