package interop

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/testenv"
)

const (
	sipPort   = 5060
	mediaPort = 6000 // alice's, which sipp echoes
)

// stunServer starts coturn's STUN server (RFC 5780) on both addresses of the internet host.
func (r *router) stunServer() {
	r.t.Helper()
	dir := r.t.TempDir()
	args := []string{"-S", "-n", "--no-tls", "--no-dtls", "--no-cli", "--log-file=stdout", "--simple-log",
		"--pidfile=" + dir + "/pid", "--userdb=" + dir + "/db"}
	for _, a := range r.Lab.Remotes {
		args = append(args, "-L", a.String())
	}
	r.serve(r.Lab.Internet, "ready", "sh", slices.Concat([]string{"-c", `echo ready; exec turnserver "$@"`, "sh"}, args)...)
}

// reflexive finds alice's outside endpoint in what turnutils_natdiscovery prints.
var reflexive = regexp.MustCompile(`UDP reflexive addr: (\S+)`)

// askSTUN returns the outside endpoint of alice's media port.
func (r *router) askSTUN() (seen netip.AddrPort) {
	r.t.Helper()
	r.soon("the STUN server to answer", func() bool {
		out := r.output(r.within(r.Lab.Subscriber, "turnutils_natdiscovery", "-m", "-L", alice.String(), "-l", fmt.Sprint(mediaPort), r.remote.String()))
		m := reflexive.FindStringSubmatch(out)
		if m == nil {
			return false
		}
		var err error
		seen, err = netip.ParseAddrPort(m[1])
		r.must(err)
		return true
	})
	return seen
}

// sipp returns the arguments of sipp for one call of a scenario in testdata, and the file of its
// messages.
func (r *router) sipp(scenario string, local netip.Addr, args ...string) (all []string, messages string) {
	dir := r.t.TempDir()
	messages = filepath.Join(dir, "messages")
	return slices.Concat([]string{"-sf", filepath.Join("testdata", scenario), "-i", local.String(), "-p", fmt.Sprint(sipPort), "-m", "1",
		"-nostdin", "-timeout", "30", "-timeout_error", "-trace_msg", "-message_file", messages,
		"-trace_err", "-error_file", filepath.Join(dir, "errors")}, args), messages
}

// sippEnds runs sipp to the end of its call, and returns its messages.
func (r *router) sippEnds(in *netlab.Namespace, scenario string, local netip.Addr, args ...string) string {
	r.t.Helper()
	args, file := r.sipp(scenario, local, args...)
	out, err := r.within(in, "sipp", args...).CombinedOutput()
	text, readErr := os.ReadFile(file)
	if err != nil || readErr != nil {
		r.t.Fatalf("sipp %s: %v, %v\n%s\n%s", scenario, err, readErr, tail(string(text)), tail(string(out)))
	}
	return string(text)
}

// call has carol call alice, and returns the RTP packets that came to alice's host, and those
// of its echoes that came out.
func (r *router) call(media netip.AddrPort, inside, outside *netlab.Capture) (in, out int) {
	r.t.Helper()
	args, _ := r.sipp("answer.xml", alice, "-mi", alice.String(), "-mp", fmt.Sprint(mediaPort), "-rtp_echo",
		"-key", "outside_ip", media.Addr().String(), "-key", "outside_port", fmt.Sprint(media.Port()))
	answers := r.serve(r.Lab.Subscriber, "ready", "sh", slices.Concat([]string{"-c", `echo ready; sipp "$@"; echo ended with $?`, "sh"}, args)...)
	r.soon("sipp to wait for the call", func() bool {
		out, err := r.Lab.Subscriber.Output(r.ctx, "ss", "-Huln", "sport", "=", fmt.Sprint(sipPort))
		r.must(err)
		return len(out) > 0
	})
	carol := r.Lab.Remotes[1]
	inside.Clear()
	outside.Clear()
	r.sippEnds(r.Lab.Internet, "call.xml", carol, r.remote.String(), "-mi", carol.String(), "-mp", "7078")
	r.await(answers, "ended with 0")
	r.must(inside.Settle(r.ctx, r.Lab.CGN, alice))
	r.settled(outside)
	sound := netip.AddrPortFrom(carol, 7078)
	in = len(inside.Matching(func(p netlab.Packet) bool {
		return p.Outgoing && p.Source == sound && p.Destination == netip.AddrPortFrom(alice, mediaPort)
	}))
	out = len(outside.Matching(func(p netlab.Packet) bool { return p.Outgoing && p.Source == media && p.Destination == sound }))
	return in, out
}

// What a registrar adds to the Via of its answer (RFC 3581 section 4).
var (
	viaReceived = regexp.MustCompile(`(?m)^Via:.*;received=([0-9.]+)`)
	viaPort     = regexp.MustCompile(`(?m)^Via:.*;rport=([0-9]+)`)
)

// TestSIP_NAT01_NAT07_NAT10 has a SIP client behind the NAT, without an ALG: it registers with
// Kamailio by rport, and calls reach it by the flow of its registration. It offers the media
// endpoint that coturn's STUN told it. With mapping and filtering that are independent of the
// endpoint the caller's media reaches it there, and its own comes back from there; without, the
// media does not.
func TestSIP_NAT01_NAT07_NAT10(t *testing.T) {
	r := startRouter(t, testenv.SIP|testenv.Coturn, "")
	outside, inside := r.captureOn(netlab.OutsideInterface), r.captureOn(netlab.InsideInterface)
	r.stunServer()
	conf := filepath.Join(t.TempDir(), "kamailio.cfg")
	r.generate(filepath.Join("testdata", "kamailio.cfg"), conf, r.remote)
	r.serve(r.Lab.Internet, "Listening on", "kamailio", "-f", conf, "-DD", "-E", "-m", "16", "-M", "4", "-Y", filepath.Dir(conf))

	messages := r.sippEnds(r.Lab.Subscriber, "register.xml", alice, r.remote.String())
	at, port := viaReceived.FindStringSubmatch(messages), viaPort.FindStringSubmatch(messages)
	if at == nil || port == nil {
		t.Fatalf("the registrar names no endpoint of the client:\n%s", messages)
	}
	if seen, err := netip.ParseAddrPort(at[1] + ":" + port[1]); err != nil || !r.alice.Covers(seen) {
		t.Errorf("the registrar sees the client at %v, not in the block: %v", seen, err)
	}

	if in, out := r.call(r.askSTUN(), inside, outside); in != 0 || out != 0 {
		t.Errorf("%d packets of media came in and %d out, although hosts that nothing was sent to are filtered", in, out)
	}
	if !r.reload("filtering: endpoint_independent") {
		t.Fatal("the reload is refused")
	}
	const least = 5 // of the 35 in the time of the call
	if in, out := r.call(r.askSTUN(), inside, outside); in < least || out < least {
		t.Errorf("%d packets of media came in and %d out, want at least %d", in, out, least)
	}
	r.audited()
	r.leaksNothing(outside)
}
