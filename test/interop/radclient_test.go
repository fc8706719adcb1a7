package interop

import (
	"bytes"
	"fmt"
	"net/netip"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/sessiond/sessiond/internal/rig"
	"github.com/sessiond/sessiond/internal/testenv"
)

// A result is the counts of radclient, which verifies replies itself, and its output.
type result struct {
	accepted, lost int
	log            string
}

var summary = regexp.MustCompile(`(?s)Packet summary:\s+Accepted\s+: (\d+)\s+Rejected\s+: \d+\s+Lost\s+: (\d+)`)

// radclient sends requests, attributes separated by commas, to a server.
func (w *world) radclient(to netip.AddrPort, kind, secret string, requests ...string) result {
	w.t.Helper()
	return w.runRadclient(to, kind, secret, requests, "-r", "1", "-t", "5")
}

func (w *world) runRadclient(to netip.AddrPort, kind, secret string, requests []string, options ...string) result {
	w.t.Helper()
	return w.summed(w.output(w.radclientCommand(to, kind, secret, requests, options...)))
}

func (w *world) radclientCommand(to netip.AddrPort, kind, secret string, requests []string, options ...string) *exec.Cmd {
	args := append([]string{"-s", "-x"}, options...)
	cmd := exec.CommandContext(w.ctx, "radclient", append(args, to.String(), kind, secret)...)
	cmd.Stdin = strings.NewReader(strings.Join(requests, "\n\n") + "\n")
	return cmd
}

// summed parses the summary at the end of radclient's output.
func (w *world) summed(log string) result {
	w.t.Helper()
	found := summary.FindStringSubmatch(log)
	if found == nil {
		w.t.Fatalf("radclient printed no summary:\n%s", log)
	}
	r := result{log: log}
	r.accepted, _ = strconv.Atoi(found[1])
	r.lost, _ = strconv.Atoi(found[2])
	return r
}

// account sends accounting requests, and checks that each is answered.
func (w *world) account(to netip.AddrPort, requests ...string) result {
	w.t.Helper()
	r := w.radclient(to, "acct", rig.Secret, requests...)
	if r.accepted != len(requests) {
		w.t.Fatalf("%d of %d requests answered:\n%s", r.accepted, len(requests), tail(r.log))
	}
	return r
}

// request returns an accounting request of the rig's BNG in radclient's syntax.
func request(status, session, user string, inside netip.Addr, more ...string) string {
	return nasRequest(rig.NAS, status, session, user, inside, more...)
}

// nasRequest returns a request of another NAS.
func nasRequest(nas, status, session, user string, inside netip.Addr, more ...string) string {
	attributes := append([]string{
		"Acct-Status-Type = " + status,
		fmt.Sprintf("Acct-Session-Id = %q", session),
		fmt.Sprintf("User-Name = %q", user),
		fmt.Sprintf("NAS-Identifier = %q", nas),
		"Framed-IP-Address = " + inside.String(),
	}, more...)
	return strings.Join(attributes, ", ")
}

// restart returns an Accounting-On or -Off, without session id as many NASes send it.
func restart(nas, status string) string {
	return fmt.Sprintf("Acct-Status-Type = %s, NAS-Identifier = %q", status, nas)
}

// TestRadclient_ACCT01_ACCT11_SES15: a session's life and a NAS's restart, each request
// answered with its own Proxy-State only.
func TestRadclient_ACCT01_ACCT11_SES15(t *testing.T) {
	w := start(t, testenv.Root|testenv.Radclient|testenv.Tshark)
	c := w.capture(w.server)
	const states = "Proxy-State = 0x00ff, Proxy-State = 0x0a0b0c"

	r := w.account(w.server, request("Start", "a-1", "alice", alice, "NAS-IP-Address = 192.0.2.1",
		`Calling-Station-Id = "02-00-00-00-00-01"`, "Class = 0x01", states))
	if n := strings.Count(r.log, "Proxy-State = 0x00ff\n\tProxy-State = 0x0a0b0c"); n != 2 {
		t.Errorf("Proxy-State is not in the reply as in the request:\n%s", r.log)
	}
	if strings.Count(r.log, "Class =") != 1 {
		t.Errorf("the reply echoes Class:\n%s", r.log)
	}
	w.wants(alice, map[string]string{
		"user_name": "alice", "acct_session_id": "a-1", "nas": rig.NAS, "nas_address": "192.0.2.1",
		"client": "bng1", "calling_station_id": "02-00-00-00-00-01",
	})
	w.block(alice)

	w.account(w.server, request("Interim-Update", "a-1", "alice", alice, "Acct-Session-Time = 1",
		"Acct-Input-Octets = 7, Acct-Input-Gigawords = 1, Acct-Output-Octets = 9"))
	w.wants(alice, map[string]string{"input_octets": "4294967303", "output_octets": "9"})

	w.account(w.server, request("Stop", "a-1", "alice", alice, "Acct-Session-Time = 2"))
	w.offline(alice)

	w.account(w.server, request("Start", "b-1", "bob", bob), request("Start", "c-1", "carol", carol))
	w.account(w.server, restart(rig.NAS, "Accounting-Off"))
	w.soon("everybody to be offline", func() bool { return w.records() == 0 })
	w.account(w.server, restart(rig.NAS, "Accounting-On"))
	c.judged(7, 0)
}

// TestRadclientWrongSecret_ACCT03: a request with a wrong secret is counted, not answered,
// and has no effect; the right secret is answered right after.
func TestRadclientWrongSecret_ACCT03(t *testing.T) {
	w := start(t, testenv.Radclient)
	forged := request("Start", "a-1", "alice", alice)
	r := w.runRadclient(w.server, "acct", "wrong", []string{forged}, "-r", "1", "-t", "0.3")
	if r.accepted != 0 {
		t.Errorf("a request under a wrong secret was answered:\n%s", r.log)
	}
	if n := w.counted("unread", "bad_authenticator"); n != 1 {
		t.Errorf("%d bad authenticators counted, want 1", n)
	}
	w.offline(alice)
	w.account(w.server, request("Start", "a-1", "alice", alice))
	w.wants(alice, map[string]string{"user_name": "alice"})
}

// TestRadclientOnePort_ACCT14: a NAS with one source port reuses every Identifier within
// the time for which replies are kept.
func TestRadclientOnePort_ACCT14(t *testing.T) {
	w := start(t, testenv.Radclient)
	const subscribers = 600 // more than twice the number of Identifiers
	requests := make([]string, subscribers)
	inside := alice
	for i := range requests {
		requests[i] = request("Start", fmt.Sprint("s-", i), fmt.Sprint("user", i), inside, w.fixedPort())
		inside = inside.Next()
	}
	r := w.runRadclient(w.server, "acct", rig.Secret, requests, "-r", "1", "-t", "5", "-p", "20")
	if r.accepted != subscribers || r.lost != 0 {
		t.Errorf("%d answered and %d lost of %d", r.accepted, r.lost, subscribers)
	}
	if n := w.records(); n != subscribers {
		t.Errorf("%d subscribers online, want %d", n, subscribers)
	}
}

// fixedPort makes radclient send from a port of the test's own.
func (w *world) fixedPort() string {
	return fmt.Sprintf("Packet-Src-IP-Address = %v, Packet-Src-Port = 33333", w.host)
}

// TestRadclientRetransmission_ACCT10_ACCT13_SES02: while Redis is down nothing is answered;
// the retransmission after its return is, and there is one session.
func TestRadclientRetransmission_ACCT10_ACCT13_SES02(t *testing.T) {
	w := start(t, testenv.Radclient)
	w.must(w.Redis.Kill())
	var log bytes.Buffer
	cmd := w.radclientCommand(w.server, "acct", rig.Secret,
		[]string{request("Start", "a-1", "alice", alice, w.fixedPort())}, "-r", "40", "-t", "0.5")
	cmd.Stdout, cmd.Stderr = &log, &log
	w.must(cmd.Start())
	w.soon("a request that could not be stored", func() bool { return w.counted("start", "store_failed") > 0 })
	if n := w.counted("start", "ok"); n != 0 {
		t.Errorf("%d Starts were answered without Redis", n)
	}
	w.must(w.Redis.Start(w.ctx))
	_ = cmd.Wait() // the summary has the result
	if r := w.summed(log.String()); r.accepted != 1 {
		t.Errorf("the retransmission was not answered:\n%s", r.log)
	}
	w.wants(alice, map[string]string{"acct_session_id": "a-1"})
	w.block(alice)
	if n := w.counted("start", "ok"); n != 1 {
		t.Errorf("the Start was stored %d times", n)
	}
}

// TestRadclientStatus_ACCT18: Status-Server is answered, without effect, only if it has a
// Message-Authenticator under the right secret.
func TestRadclientStatus_ACCT18(t *testing.T) {
	w := start(t, testenv.Root|testenv.Radclient|testenv.Tshark)
	c := w.capture(w.server)
	const signed = "Message-Authenticator = 0x00"
	if r := w.radclient(w.server, "status", rig.Secret, signed); r.accepted != 1 {
		t.Errorf("Status-Server is not answered:\n%s", r.log)
	}
	c.judged(0, 1)
	r := w.runRadclient(w.server, "status", "wrong", []string{signed}, "-r", "1", "-t", "0.3")
	if r.accepted != 0 {
		t.Errorf("Status-Server under a wrong secret is answered:\n%s", r.log)
	}
	if n := w.records(); n != 0 {
		t.Errorf("Status-Server made %d records", n)
	}
}

// TestRadclientOctets_ACCT23: octets that are not text, or that have a meaning in Redis,
// logs and keys, arrive unchanged.
func TestRadclientOctets_ACCT23(t *testing.T) {
	w := start(t, testenv.Radclient)
	const odd = `Acct-Session-Id = "/\000}\r\n*", User-Name = "\377\"]'", NAS-Identifier = "bng 1/x"`
	where := ", Framed-IP-Address = " + alice.String()
	w.account(w.server, "Acct-Status-Type = Start, "+odd+where)
	out, err := w.Redis.CLI(w.ctx, "--no-raw", "HMGET", "sessiond:{default}:sub:"+alice.String(), "acct_session_id", "user_name", "nas")
	w.must(err)
	if want := `1) "/\x00}\r\n*"` + "\n" + `2) "\xff\"]'"` + "\n" + `3) "bng 1/x"`; out != want {
		t.Errorf("Redis has\n%s\nwant\n%s", out, want)
	}
	w.account(w.server, "Acct-Status-Type = Stop, "+odd+where)
	w.offline(alice)
}
