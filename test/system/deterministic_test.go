package system

import (
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sessiond/sessiond/internal/rig"
)

// TestDeterministic: a host on the internet sees a subscriber from the port that the
// configuration alone leads back from, also the next subscriber at the address, at once.
func TestDeterministic_NAT38(t *testing.T) {
	w := start(t, rig.Options{})
	w.reload("  - {name: default, inside: [10.9.0.0/30, 100.64.0.0/24], outside: [198.51.100.0/28], hold: 1h, deterministic: true}\n", true)
	echo, err := w.Lab.StartEcho(netip.AddrPortFrom(w.Lab.Remotes[0], 0))
	w.must(err)
	config := filepath.Join(w.Dir, "sessiond.yaml")
	for _, session := range []string{"a-1", "a-2"} {
		s := sessionOf(alice, session)
		s.User = session
		w.online(s)
		seen, err := w.Lab.Subscriber.AskUDP(w.ctx, netip.AddrPortFrom(alice, 0), echo.Addr())
		w.must(err)
		out, err := exec.CommandContext(w.ctx, programs.Sessiond, "--config", config, "--deterministic", seen.String()).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "inside address "+alice.String()+" has "+seen.Addr().String()) {
			t.Errorf("%v, seen from %v: %s, %v", alice, seen, out, err)
		}
		w.must(w.Offline(w.ctx, s))
		w.gone(alice)
	}
}
