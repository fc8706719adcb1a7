//go:build e2e

package e2e

import (
	"context"
	"errors"
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

// A subscriber is a host behind the CGN.
type subscriber struct {
	host
	inside netip.Addr
}

// A stack is the set of containers of a lab that run.sh has started. Containers that scripts
// replace (sessiond, Redis) are not kept here, but looked up.
type stack struct {
	cgn, bng, internet host
	subscribers        map[string]subscriber // by service, which is the User-Name too

	echo       netip.AddrPort // the internet host's echo servers
	flowsAt    netip.AddrPort // its address that takes flows
	slot       string         // the third octet of the lab's subnets
	prometheus netip.AddrPort
	pool       netip.Prefix
	blockSize  uint16
}

func newStack(t *testing.T) *stack {
	t.Helper()
	slot := os.Getenv("LAB")
	if slot == "" || os.Getenv("E2E_PROJECT") == "" {
		t.Fatal("no LAB: run these tests by e2e/run.sh")
	}
	remote := netip.MustParseAddr("198.18." + slot + ".10")
	s := &stack{
		echo: netip.AddrPortFrom(remote, 7007), flowsAt: netip.AddrPortFrom(remote, 7000),
		prometheus: netip.MustParseAddrPort("10.91." + slot + ".40:9090"),
		slot:       slot, pool: netip.MustParsePrefix("198.51.100.0/28"), blockSize: 512,
		subscribers: map[string]subscriber{},
	}
	for service, h := range map[string]*host{"cgn": &s.cgn, "bng": &s.bng, "internet": &s.internet} {
		*h = newHost(t, service)
	}
	for service, address := range map[string]string{"alice": ".10", "bob": ".11"} {
		s.subscribers[service] = subscriber{newHost(t, service), netip.MustParseAddr("100.64." + slot + address)}
	}
	if err := s.awaitHealthy("sessiond", time.Minute); err != nil {
		t.Fatal(err)
	}
	return s
}

func newHost(t *testing.T, service string) host {
	t.Helper()
	if err := (*stack)(nil).awaitHealthy(service, time.Minute); err != nil {
		t.Fatal(err)
	}
	pid, err := pidOf(service)
	if err != nil {
		t.Fatal(err)
	}
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

// user returns a subscriber by User-Name.
func (s *stack) user(name string) (subscriber, error) {
	h, ok := s.subscribers[name]
	if !ok {
		return subscriber{}, usageError(fmt.Sprintf("%q is no subscriber of the lab", name))
	}
	return h, nil
}

// awaitHealthy waits until a service's container runs and, if it has a health check, is
// healthy.
func (*stack) awaitHealthy(service string, within time.Duration) error {
	return eventually(within, func() error {
		health, err := healthOf(service)
		if err == nil && health != "healthy" {
			err = fmt.Errorf("%s is %s", service, health)
		}
		return err
	})
}

// healthOf returns what the engine says about the health of a service's container.
func healthOf(service string) (string, error) {
	id, err := containerOf(service)
	if err != nil {
		return "", err
	}
	return docker("inspect", "-f", "{{if .State.Health}}{{.State.Health.Status}}{{else}}healthy{{end}}", id)
}

func pidOf(service string) (int, error) {
	id, err := containerOf(service)
	if err != nil {
		return 0, err
	}
	pid, err := docker("inspect", "-f", "{{.State.Pid}}", id)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(pid)
}

// containerOf returns the id of a service's container that runs.
func containerOf(service string) (string, error) {
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
		return "", fmt.Errorf("docker %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

// compose runs the compose command of run.sh, with its project and files.
func compose(args ...string) error {
	words := strings.Fields(os.Getenv("E2E_COMPOSE"))
	if len(words) == 0 {
		return errors.New("no E2E_COMPOSE: run these tests by e2e/run.sh")
	}
	cmd := exec.Command(words[0], append(words[1:], args...)...)
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("compose %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// aMinute returns a context for one step.
func aMinute() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), time.Minute)
}
