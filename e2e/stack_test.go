//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/labapi"
	"github.com/sessiond/sessiond/internal/netlab"
)

// A host is a container seen from outside: its network namespace, and a client of the
// commands it takes.
type host struct {
	*labapi.Client
	ns *netlab.Namespace
}

// A stack is the set of containers that run.sh has started.
type stack struct {
	redis, sessiond, bng, subscriber, internet host

	alice, bob netip.Addr     // inside addresses of the subscriber's host
	remote     netip.Addr     // the internet host's
	echo       netip.AddrPort // its echo servers
	flows      netip.AddrPort // address that takes flows
	pool       netip.Prefix
	blockSize  uint16
	sessionctl string
}

func newStack(t *testing.T) *stack {
	t.Helper()
	slot := os.Getenv("E2E_SLOT")
	if slot == "" {
		t.Fatal("no E2E_SLOT: run these tests by e2e/run.sh")
	}
	s := &stack{
		alice:      netip.MustParseAddr("100.64." + slot + ".10"),
		bob:        netip.MustParseAddr("100.64." + slot + ".11"),
		remote:     netip.MustParseAddr("198.18." + slot + ".10"),
		pool:       netip.MustParsePrefix("198.51.100.0/28"),
		blockSize:  512,
		sessionctl: "../bin/sessionctl",
	}
	s.echo, s.flows = netip.AddrPortFrom(s.remote, 7007), netip.AddrPortFrom(s.remote, 7000)
	for service, h := range map[string]*host{
		"redis": &s.redis, "sessiond": &s.sessiond, "bng": &s.bng,
		"subscriber": &s.subscriber, "internet": &s.internet,
	} {
		*h = newHost(t, service)
	}
	return s
}

func newHost(t *testing.T, service string) host {
	t.Helper()
	var pid int
	eventually(t, 60*time.Second, func() (err error) {
		pid, err = running(service)
		return err
	})
	ns, err := netlab.OfProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	c := labapi.NewClient(ns)
	t.Cleanup(func() {
		c.Close()
		_ = ns.Close()
	})
	return host{Client: c, ns: ns}
}

// running returns the pid of a service's container once it runs and, if it has
// a health check, is healthy.
func running(service string) (int, error) {
	id, err := container(service)
	if err != nil {
		return 0, err
	}
	state, err := docker("inspect", "-f",
		"{{.State.Pid}} {{if .State.Health}}{{.State.Health.Status}}{{else}}healthy{{end}}", id)
	if err != nil {
		return 0, err
	}
	pid, health, _ := strings.Cut(state, " ")
	if health != "healthy" {
		return 0, fmt.Errorf("%s is %s", service, health)
	}
	return strconv.Atoi(pid)
}

// container returns the id of a service's container.
func container(service string) (string, error) {
	id, err := docker("ps", "-q",
		"--filter", "label=com.docker.compose.project="+os.Getenv("E2E_PROJECT"),
		"--filter", "label=com.docker.compose.service="+service)
	if err == nil && id == "" {
		err = fmt.Errorf("%s does not run", service)
	}
	return id, err
}

func docker(args ...string) (string, error) {
	out, err := exec.Command("docker", args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("docker %s: %w: %s", args[0], err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

// eventually calls try until it returns nil, and fails the test after the given time.
func eventually(t *testing.T, within time.Duration, try func() error) {
	t.Helper()
	deadline := time.After(within)
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("not within %v: %v", within, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// testContext is valid in cleanups too, unlike that of the test.
func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}
