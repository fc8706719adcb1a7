package interop

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/testenv"
)

const ftpText = "from a server of its own\n"

// vsftpd starts an FTP server on an address of the internet host. Where it connects to any
// address, a client may name another one than its own.
func (r *router) vsftpd(at netip.Addr, anyPort bool) {
	r.t.Helper()
	dir := r.t.TempDir()
	files, empty := filepath.Join(dir, "files"), filepath.Join(dir, "empty")
	r.must(errors.Join(os.Mkdir(files, 0o755), os.Mkdir(empty, 0o555), os.WriteFile(filepath.Join(files, "file"), []byte(ftpText), 0o644)))
	for d := files; d != os.TempDir() && d != "/"; d = filepath.Dir(d) { // for the user ftp
		r.must(os.Chmod(d, 0o755))
	}
	conf := filepath.Join(dir, "vsftpd.conf")
	r.generate(filepath.Join("testdata", "vsftpd.conf"), conf, struct {
		Address      netip.Addr
		Files, Empty string
		AnyPort      string
	}{at, files, empty, map[bool]string{true: "YES", false: "NO"}[anyPort]})
	r.serve(r.Lab.Internet, "ready", "sh", "-c", "echo ready; vsftpd "+conf+"; echo ended with $?") // as process 1 it crashes
	r.soon("vsftpd to listen", func() bool {
		c, err := r.Lab.Internet.Dial(r.ctx, "tcp4", netip.AddrPort{}, netip.AddrPortFrom(at, 21))
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
}

// curlFTP fetches the file, and returns what curl prints, and its exit code.
func (r *router) curlFTP(from netip.Addr, server netip.Addr, args ...string) (text string, code int) {
	r.t.Helper()
	args = append([]string{"-sS", "--interface", from.String()}, args...)
	out, err := r.within(r.Lab.Subscriber, "curl", append(args, "ftp://"+server.String()+"/file")...).CombinedOutput()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return string(out), exit.ExitCode()
	}
	r.must(err)
	return string(out), 0
}

// Exit codes of curl.
const (
	curlTimeout      = 28
	curlPortRefused  = 30 // the server refuses PORT
	curlAcceptFailed = 10
	curlAcceptLate   = 12
)

// TestVsftpd_NAT10: no ALG can be configured. Without one, a client of vsftpd in passive mode,
// by EPSV and by PASV, gets the file. In active mode it names its inside address; the server
// refuses that at once, so that a client knows why, and nothing connects.
func TestVsftpd_NAT10(t *testing.T) {
	r := startRouter(t, testenv.FTP, "")
	if r.reload("alg: [ftp]") || !strings.Contains(r.Daemon.Log(), "groups[0].alg") {
		t.Errorf("a reload with an ALG is not refused:\n%s", tail(r.Daemon.Log()))
	}
	outside := r.captureOn(netlab.OutsideInterface)
	r.vsftpd(r.remote, false)
	for _, how := range []string{"--ftp-pasv", "--disable-epsv"} {
		if text, code := r.curlFTP(alice, r.remote, how); code != 0 || text != ftpText {
			t.Errorf("curl %s ends with %d: %s", how, code, text)
		}
	}
	for _, how := range []string{"--eprt", "--disable-eprt"} {
		text, code := r.curlFTP(alice, r.remote, "--ftp-port", "-", how)
		if code != curlPortRefused {
			t.Errorf("curl in active mode, %s, ends with %d, want it refused: %s", how, code, text)
		}
	}
	r.audited()
	r.settled(outside)
	fromServer := func(p netlab.Packet) bool {
		return p.Source.Addr() == r.remote && p.Flags&(netlab.SYN|netlab.ACK) == netlab.SYN
	}
	if seen := outside.Matching(fromServer); len(seen) > 0 {
		t.Errorf("the server connects, in active mode: %+v", seen[0])
	}
	r.leaksNothing(outside)
}

// TestVsftpdBesideHelper_NAT10_NAT40_I1: another table assigns the kernel's FTP helper to the
// subscriber's connections to vsftpd. It rewrites the address that the client names, the server
// connects to the port that the helper expects, and gets no answer: the port is not the
// subscriber's. All entries stay in the block.
func TestVsftpdBesideHelper_NAT10_NAT40_I1(t *testing.T) {
	r := startRouter(t, testenv.FTP, "")
	r.vsftpd(r.remote, true)
	r.soon("the kernel to take the helper", func() bool {
		_, err := r.Lab.CGN.Output(r.ctx, "nft", `table ip alg {
			ct helper ftp { type "ftp" protocol tcp; }
			chain assign { type filter hook prerouting priority filter; tcp dport 21 ct helper set "ftp"; }
		}`)
		return err == nil
	})
	outside, inside := r.captureOn(netlab.OutsideInterface), r.captureOn(netlab.InsideInterface)
	before := r.drops("expected")
	text, code := r.curlFTP(alice, r.remote, "--disable-eprt", "--ftp-port", "-", "--max-time", "4", "-v")
	if code != curlTimeout && code != curlAcceptLate && code != curlAcceptFailed {
		t.Errorf("curl in active mode ends with %d: %s", code, text)
	}
	attempt := func(p netlab.Packet) bool {
		return p.Source.Addr() == r.remote && p.Flags&(netlab.SYN|netlab.ACK) == netlab.SYN
	}
	if _, err := outside.Await(r.ctx, attempt); err != nil {
		t.Fatalf("the server does not connect, so this test shows nothing: %v\n%s", err, text)
	}
	r.soon("the connection to be counted as expected", func() bool { return r.drops("expected") > before })
	r.must(inside.Settle(r.ctx, r.Lab.CGN, alice))
	if seen := inside.Matching(attempt); len(seen) > 0 {
		t.Errorf("the server's connection arrives at the subscriber: %+v", seen[0])
	}
	r.audited()
	r.leaksNothing(outside)
}
