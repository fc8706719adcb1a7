//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/netlab"
)

// binding is the part of a line of `sessionctl binding list -o json` that the tests read.
type binding struct {
	InsideAddress  netip.Addr `json:"inside_address"`
	OutsideAddress netip.Addr `json:"outside_address"`
	FirstPort      uint16     `json:"first_port"`
	LastPort       uint16     `json:"last_port"`
	State          string     `json:"state"`
}

// holds reports whether the binding gives its subscriber an outside address
// and port.
func (b binding) holds(a netip.AddrPort) bool {
	return a.Addr() == b.OutsideAddress && b.FirstPort <= a.Port() && a.Port() <= b.LastPort
}

func (b binding) is(state string) bool { return strings.HasSuffix(b.State, state) }

// ctl runs sessionctl in the daemon's namespace.
func (s *stack) ctl(t *testing.T, args ...string) []byte {
	t.Helper()
	out, err := s.sessiond.ns.Output(testContext(t), s.sessionctl, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// bindings returns the bindings of an inside address, the held ones too.
func (s *stack) bindings(t *testing.T, inside netip.Addr) []binding {
	t.Helper()
	out := s.ctl(t, "-o", "json", "binding", "list", "--inside", inside.String())
	var all []binding
	for line := range bytes.Lines(out) {
		var b binding
		if err := json.Unmarshal(line, &b); err != nil {
			t.Fatalf("binding list: %v: %s", err, line)
		}
		all = append(all, b)
	}
	return all
}

// awaitState waits until the address has one binding in the state, and returns
// it.
func (s *stack) awaitState(t *testing.T, inside netip.Addr, state string, within time.Duration) binding {
	t.Helper()
	var found binding
	eventually(t, within, func() error {
		all := s.bindings(t, inside)
		if len(all) != 1 || !all[0].is(state) {
			return fmt.Errorf("bindings of %v are %+v, not one %s", inside, all, state)
		}
		found = all[0]
		return nil
	})
	return found
}

// awaitFree waits until the address has no binding any more.
func (s *stack) awaitFree(t *testing.T, inside netip.Addr, within time.Duration) {
	t.Helper()
	eventually(t, within, func() error {
		if all := s.bindings(t, inside); len(all) > 0 {
			return fmt.Errorf("bindings of %v: %+v", inside, all)
		}
		return nil
	})
}

// traces returns the state in the daemon's kernel of an inside address: conntrack entries
// that have it in either tuple, and nftables elements that name it.
func (s *stack) traces(t *testing.T, inside netip.Addr) []string {
	t.Helper()
	found, err := s.sessiond.ns.Conntrack(testContext(t), inside)
	if err != nil {
		t.Fatal(err)
	}
	ruleset, err := s.sessiond.ns.NftJSON(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(ruleset), `"`+inside.String()+`"`) {
		found = append(found, "an nftables element")
	}
	return found
}

// awaitNoTrace waits until the kernel has no state of the address.
func (s *stack) awaitNoTrace(t *testing.T, inside netip.Addr, within time.Duration) {
	t.Helper()
	eventually(t, within, func() error {
		if found := s.traces(t, inside); len(found) > 0 {
			return fmt.Errorf("of %v there is %q", inside, found)
		}
		return nil
	})
}

func (s *stack) recordKey(inside netip.Addr) string {
	return "sessiond:{default}:sub:" + inside.String()
}

// redisCLI runs redis-cli in the namespace of Redis.
func (s *stack) redisCLI(t *testing.T, args ...string) string {
	t.Helper()
	out, err := s.redis.ns.Output(testContext(t), "redis-cli", args...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// capture starts to capture the packets that reach the internet host.
func (s *stack) capture(t *testing.T) *netlab.Capture {
	t.Helper()
	c, err := s.internet.ns.Capture("eth0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// checkCaptured fails the test if an unwanted packet was captured, once all packets in
// flight have been.
func (s *stack) checkCaptured(t *testing.T, c *netlab.Capture, what string, unwanted func(netlab.Packet) bool) {
	t.Helper()
	if err := c.Settle(testContext(t), s.sessiond.ns, s.remote); err != nil {
		t.Fatal(err)
	}
	if dropped, err := c.Dropped(); dropped > 0 || err != nil {
		t.Errorf("capture is incomplete: %d dropped, %v", dropped, err)
	}
	if leaks := c.Matching(unwanted); len(leaks) > 0 {
		t.Errorf("%s: %d packets, the first %+v", what, len(leaks), leaks[0])
	}
}

// countFlows returns the number of flows that the internet host has seen so far.
func (s *stack) countFlows(t *testing.T) int {
	t.Helper()
	all, err := s.internet.Flows(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// pingSeen returns the ping with the payload as the internet host saw it.
func (s *stack) pingSeen(t *testing.T, payload string) netip.AddrPort {
	t.Helper()
	var source netip.AddrPort
	eventually(t, 5*time.Second, func() error {
		seen, err := s.internet.Seen(testContext(t))
		if err != nil {
			return err
		}
		i := slices.IndexFunc(seen.Pings, func(r netlab.EchoRequest) bool { return r.Payload == payload })
		if i < 0 {
			return fmt.Errorf("ping %s was not seen", payload)
		}
		source = netip.AddrPortFrom(seen.Pings[i].Source, seen.Pings[i].ID)
		return nil
	})
	return source
}
