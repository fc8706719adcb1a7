package deb

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"layeh.com/radius/rfc2866"

	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/radiusacct/acctclient"
	"github.com/sessiond/sessiond/internal/testenv"
)

// The variables of the test, which scripts/deb-test.sh sets: a tar of the root of a bare Debian
// 12 whose apt has the dependencies at hand, two versions of the package, and the programs.
const (
	rootVariable     = "DEB_ROOT"
	olderVariable    = "DEB_OLDER"
	newerVariable    = "DEB_NEWER"
	programsVariable = "DEB_PROGRAMS"
)

var alice = netip.MustParseAddr("100.64.0.10")

// needed returns the values of the variables, and skips the test without them.
func needed(t *testing.T, variables ...string) (values []string) {
	t.Helper()
	testenv.Require(t, testenv.Root)
	for _, v := range variables {
		if os.Getenv(v) == "" {
			t.Skip("make deb-test runs this")
		}
		values = append(values, os.Getenv(v))
	}
	return values
}

// lab returns a lab with a BNG at 192.0.2.2, beside the CGN.
func newLab(t *testing.T) (*netlab.Lab, *netlab.Namespace) {
	t.Helper()
	lab, err := netlab.New(netlab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	bng, err := lab.AddHost("bng", netip.MustParsePrefix("192.0.2.2/24"),
		netlab.Interface{Name: "b0", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}})
	if err != nil {
		t.Fatal(err)
	}
	return lab, bng
}

// dialBNG returns a client that sends each request once.
func dialBNG(t *testing.T, bng *netlab.Namespace) *acctclient.Client {
	t.Helper()
	conn, err := bng.Dial(t.Context(), "udp4", netip.AddrPort{}, netip.MustParseAddrPort("192.0.2.1:1813"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := acctclient.New(conn, acctclient.Options{Secret: []byte("choose-your-own"), Timeout: time.Minute, Transmissions: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func request(status rfc2866.AcctStatusType, inside netip.Addr) acctclient.Request {
	return acctclient.Request{
		Status: status, SessionID: "s-" + inside.String(), UserName: "user-" + inside.String(), NASIdentifier: "bng1",
		FramedAddress: inside, EventTime: time.Now(),
	}
}

// TestLifeOfAPackage: on a bare Debian 12 the package is installed, five lines are written, and
// a subscriber is translated. Its flows live through an upgrade and a downgrade without a lost
// packet, and every accounting request is answered. Removal and purge take NAT and data only
// from who says yes.
func TestLifeOfAPackage(t *testing.T) {
	files := needed(t, rootVariable, olderVariable, newerVariable)
	older, newer := "/root/"+filepath.Base(files[1]), "/root/"+filepath.Base(files[2])
	lab, bngHost := newLab(t)
	m := boot(t, files[0], lab.CGN, files[1], files[2])
	bng := dialBNG(t, bngHost)

	// As a new user does it.
	if out := m.run("apt-get install -y " + older); !strings.Contains(out, "edit /etc/sessiond/sessiond.yaml, then: systemctl start sessiond") {
		t.Errorf("the installation does not tell what to do next:\n%s", out)
	}
	m.is("systemctl is-active sessiond redis-server", "inactive\nactive")
	m.is("stat -c '%a %U %G' /etc/sessiond /etc/sessiond/sessiond.yaml /var/spool/sessiond",
		"2750 root sessiond\n640 root sessiond\n750 sessiond sessiond")
	m.run(`sed -i -e '/^#radius:/,$s/^#//' -e 's/eth1/s0/; s/eth0/i0/' /etc/sessiond/sessiond.yaml`)
	if lines := m.run("grep -c '^[^#]' /etc/sessiond/sessiond.yaml"); lines != "5" {
		t.Errorf("%s lines of configuration", lines)
	}
	m.run("systemctl start sessiond")
	m.is("systemctl is-active sessiond sessiond-barrier", "active\nactive")
	m.is("cat /proc/sys/net/ipv4/ip_forward", "1")
	m.is("sessionctl status >/dev/null; echo $?", "0")
	if err := bng.Account(t.Context(), request(rfc2866.AcctStatusType_Value_Start, alice)); err != nil {
		t.Fatal(err)
	}
	f := openFlows(t, lab, alice)
	if from := f.outside.Remote().Addr(); !netip.MustParsePrefix("198.51.100.0/28").Contains(from) {
		t.Fatalf("alice comes from %v", from)
	}
	m.is("sessionctl subscriber list -o csv | grep -c user-100.64.0.10", "1")

	for _, change := range []struct{ name, file, want string }{
		{"upgrade", newer, os.Getenv(newerVariable)},
		{"downgrade", older, os.Getenv(olderVariable)},
	} {
		t.Run(change.name, func(t *testing.T) {
			before := m.run("systemctl show -P MainPID sessiond")
			table := m.run("nft -a list tables | grep 'ip sessiond'")
			load := startLoad(t, f, bng)
			m.run("apt-get install -y --allow-downgrades " + change.file)
			m.until("it is ready", func() error { _, err := m.try("sessionctl status"); return err })
			load.stop(t)
			after := m.run("systemctl show -P MainPID sessiond")
			if before == after {
				t.Errorf("process %s goes on", before)
			}
			m.is("dpkg-query -W -f '${Version}' sessiond", versionOf(change.want))
			m.is(fmt.Sprintf("readlink /proc/%s/exe", after), "/usr/bin/sessiond")
			m.is("nft -a list tables | grep 'ip sessiond'", table) // with its handle: it was not made anew
			t.Logf("%s: %v", change.name, load)
		})
	}

	m.crash()
	f.passes(t, "after a crash")

	m.run("apt-get remove -y sessiond")
	m.is("systemctl is-active sessiond", "inactive")
	m.run("apt-get install -y " + older)
	m.is("systemctl is-active sessiond", "active") // as it was before
	m.run("apt-get remove -y sessiond")
	f.passes(t, "after the removal")
	m.run("apt-get purge -y sessiond")
	f.passes(t, "after a purge without an answer")
	m.is("ls /etc/sessiond /var/lib/sessiond /var/log/sessiond 2>&1 | grep -c 'No such file'", "3")

	// The same again, with the answer yes, and a configuration that is there already.
	m.run("apt-get install -y " + newer)
	m.run(`sed -i -e '/^#radius:/,$s/^#//' -e 's/eth1/s0/; s/eth0/i0/' /etc/sessiond/sessiond.yaml`)
	m.run("systemctl start sessiond && touch /var/lib/sessiond/kept")
	f.passes(t, "after a new installation")
	m.run("apt-get purge -y sessiond")
	f.passes(t, "after a purge without an answer")
	m.is("ls /var/lib/sessiond", "kept")
	m.run("apt-get install -y " + newer)
	m.run(`sed -i -e '/^#radius:/,$s/^#//' -e 's/eth1/s0/; s/eth0/i0/' /etc/sessiond/sessiond.yaml`)
	m.run("printf 'sessiond sessiond/purge-nat boolean true\nsessiond sessiond/purge-data boolean true\n' | debconf-set-selections")
	m.run("apt-get purge -y sessiond")
	if left := m.run("nft list tables; ip route show proto 93; tc filter show dev i0 egress; ls -d /var/*/sessiond /etc/sessiond 2>/dev/null || true"); left != "" {
		t.Errorf("a purge with the answer yes left:\n%s", left)
	}
}

// crash ends sessiond as a panic does, and waits until systemd has started it anew.
func (m *machine) crash() {
	m.t.Helper()
	const process = "systemctl show -P MainPID sessiond"
	before := m.run(process)
	m.run("systemctl kill --signal=QUIT sessiond")
	m.until("another process is ready", func() error {
		if after, err := m.try(process); err != nil || strings.TrimSpace(after) == before {
			return fmt.Errorf("process %s, %v", after, err)
		}
		_, err := m.try("sessionctl status")
		return err
	})
}

// TestDemoUnderTheUnit: the demo holds with a sessiond that systemd runs as the package's
// service, with the drop-in for network namespaces.
func TestDemoUnderTheUnit(t *testing.T) {
	files := needed(t, rootVariable, newerVariable, programsVariable)
	lab, _ := newLab(t)
	service, err := filepath.Abs("testdata/as-service")
	if err != nil {
		t.Fatal(err)
	}
	m := boot(t, files[0], lab.CGN, files[1], filepath.Join(files[2], "demo"), service)
	m.run("apt-get install -y /root/" + filepath.Base(files[1]))
	out := m.run("TMPDIR=/srv /root/demo --sessiond /root/as-service --sessionctl /usr/bin/sessionctl")
	lines := strings.Split(out, "\n")
	t.Log(lines[len(lines)-1])
	if !strings.Contains(out, "Every step held") {
		t.Errorf("the demo:\n%s", out)
	}
	m.is("journalctl -k --no-pager | grep -c 'audit.*seccomp'", "0")
}

// versionOf returns the version in the name of a package's file.
func versionOf(file string) string { return strings.Split(filepath.Base(file), "_")[1] }

// passes checks that the flow goes on.
func (f *flows) passes(t *testing.T, when string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := f.exchange(ctx); err != nil {
		t.Errorf("%s: %v", when, err)
	}
}
