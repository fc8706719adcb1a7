package interop

import (
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/sessiond/sessiond/internal/rig"
)

// A capture is a file of the packets to and from sessiond.
type capture struct {
	w    *world
	port string
	file string
	by   *rig.Program
}

// capture starts to capture the packets to and from an address.
func (w *world) capture(at netip.AddrPort) *capture {
	w.t.Helper()
	c := &capture{w: w, port: fmt.Sprint(at.Port()), file: filepath.Join(w.t.TempDir(), "radius.pcap")}
	c.by = w.program("listening on lo", "tcpdump", "-i", "lo", "-n", "-U", "--immediate-mode", "-Z", "root",
		"-w", c.file, "udp and host "+at.Addr().String()+" and port "+c.port)
	return c
}

// end ends the capture once it has that many replies.
func (c *capture) end(replies int) {
	c.w.t.Helper()
	want := fmt.Sprintf("%d packet", replies)
	c.w.soon(want+" from sessiond in the capture", func() bool {
		out, _ := exec.CommandContext(c.w.ctx, "tcpdump", "-r", c.file, "--count", "src port "+c.port).Output()
		return strings.HasPrefix(string(out), want)
	})
	c.w.must(c.by.Stop())
}

// tshark dissects the capture, and returns fields of the packets that match.
func (c *capture) tshark(secret, filter string, fields ...string) []string {
	c.w.t.Helper()
	args := []string{
		"-n", "-r", c.file, "-d", "udp.port==" + c.port + ",radius", "-o", "radius.shared_secret:" + secret,
		"-o", "radius.validate_authenticator:TRUE", "-Y", filter, "-T", "fields", "-e", "radius.code",
	}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	out, err := exec.CommandContext(c.w.ctx, "tshark", args...).Output()
	c.w.must(err)
	return strings.FieldsFunc(string(out), func(r rune) bool { return r == '\n' })
}

// judged ends the capture and checks it with other programs: tshark finds every packet well
// formed and the authenticator of every reply to an Accounting-Request right, and radsniff
// finds the request of every reply. Tshark does not check the replies to Status-Server;
// their clients do.
func (c *capture) judged(toAccounting, toStatus int) {
	c.w.t.Helper()
	c.end(toAccounting + toStatus)
	authentic, faulty := c.authentic(rig.Secret)
	if authentic != toAccounting || faulty != 0 {
		c.w.t.Errorf("tshark finds %d replies authentic and %d packets bad, want %d and none", authentic, faulty, toAccounting)
	}
	// Proof that tshark checks: with another secret nothing is authentic.
	if _, forged := c.authentic("another"); forged != toAccounting {
		c.w.t.Errorf("tshark with a wrong secret finds %d replies forged, want all %d", forged, toAccounting)
	}
	c.sniffed(toAccounting + toStatus)
}

// authentic counts the replies whose authenticator tshark finds right, and the packets that
// are malformed, not RADIUS, or forged replies. It counts replies only, because tshark
// checks a request only when its Identifier was used before, which happens now and then
// with the random ones of a proxy.
func (c *capture) authentic(secret string) (right, faulty int) {
	c.w.t.Helper()
	const (
		accountingResponse = "5"
		invalid, malformed = "radius.authenticator.invalid", "_ws.malformed"
	)
	for _, line := range c.tshark(secret, "udp", "radius.authenticator.valid", invalid, malformed) {
		f := strings.Split(line, "\t")
		reply := f[0] == accountingResponse
		switch {
		case f[0] == "" || f[3] != "" || reply && f[2] == "1":
			faulty++
		case reply && f[1] == "1":
			right++
		}
	}
	return right, faulty
}

func (c *capture) sniffed(replies int) {
	c.w.t.Helper()
	pairs := c.radsniff()
	if n := strings.Count(pairs, "Accounting-Response Id"); n != replies {
		c.w.t.Errorf("radsniff sees %d replies, want %d:\n%s", n, replies, pairs)
	}
	if odd := c.radsniff("-e", "noreq,error"); strings.Contains(odd, " Id ") {
		c.w.t.Errorf("radsniff finds fault:\n%s", odd)
	}
}

func (c *capture) radsniff(args ...string) string {
	c.w.t.Helper()
	args = append(args, "-I", c.file, "-p", c.port, "-s", rig.Secret)
	return c.w.output(exec.CommandContext(c.w.ctx, "radsniff", args...))
}
