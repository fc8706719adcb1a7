//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

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

// ctl runs sessionctl where the operators sit.
func ctl(args ...string) (string, error) {
	id, err := containerOf("noc")
	if err != nil {
		return "", err
	}
	return docker(append([]string{"exec", id, "sessionctl"}, args...)...)
}

// bindings returns the bindings of an inside address, the held ones too.
func (s *stack) bindings(inside netip.Addr) ([]binding, error) {
	out, err := ctl("-o", "json", "binding", "list", "--inside", inside.String())
	if err != nil {
		return nil, err
	}
	var all []binding
	for line := range strings.Lines(out) {
		var b binding
		if err := json.Unmarshal([]byte(line), &b); err != nil {
			return nil, fmt.Errorf("binding list: %w: %s", err, line)
		}
		all = append(all, b)
	}
	return all, nil
}

// traces returns the state in the daemon's kernel of an inside address: conntrack entries
// that have it in either tuple, and nftables elements that name it.
func (s *stack) traces(inside netip.Addr) ([]string, error) {
	ctx, cancel := aMinute()
	defer cancel()
	found, err := s.cgn.ns.Conntrack(ctx, inside)
	if err != nil {
		return nil, err
	}
	ruleset, err := s.cgn.ns.NftJSON(ctx)
	if err != nil {
		return nil, err
	}
	if strings.Contains(string(ruleset), `"`+inside.String()+`"`) {
		found = append(found, "an nftables element")
	}
	return found, nil
}

// redisCLI runs redis-cli in the container of Redis.
func redisCLI(args ...string) (string, error) {
	id, err := containerOf("redis")
	if err != nil {
		return "", err
	}
	return docker(append([]string{"exec", id, "redis-cli"}, args...)...)
}

// A capture is the packets that reach the internet host.
type capture struct{ *netlab.Capture }

// startCapture ends the script if there can be none.
func (s *stack) startCapture(ts *testscript.TestScript) *capture {
	c, err := s.internet.ns.Capture("eth0")
	ts.Check(err)
	return &capture{c}
}

// check fails if an unwanted packet was captured, once all packets in flight have been.
func (c *capture) check(s *scenario, what string, unwanted func(netlab.Packet) bool) error {
	ctx, cancel := aMinute()
	defer cancel()
	if err := c.Settle(ctx, s.cgn.ns, s.echo.Addr()); err != nil {
		return err
	}
	if dropped, err := c.Dropped(); dropped > 0 || err != nil {
		return fmt.Errorf("the capture is incomplete: %d dropped, %w", dropped, err)
	}
	if found := c.Matching(unwanted); len(found) > 0 {
		return fmt.Errorf("%s: %d packets, the first %+v", what, len(found), found[0])
	}
	return nil
}

// pingSeen returns the ping with the payload as the internet host saw it.
func (s *stack) pingSeen(payload string) (source netip.AddrPort, err error) {
	ctx, cancel := aMinute()
	defer cancel()
	err = eventually(5*time.Second, func() error {
		seen, err := s.internet.Seen(ctx)
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
	return source, err
}

// metric waits until Prometheus has the value for an expression that yields one.
//
//	metric EXPRESSION VALUE [WITHIN]
func (s *scenario) metric(args []string) error {
	if err := usage(args, "metric EXPRESSION VALUE [WITHIN]", 2, 3); err != nil {
		return err
	}
	limit, err := within(args, 2, 30*time.Second)
	if err != nil {
		return err
	}
	return eventually(limit, func() error {
		got, err := query(s.prometheus, args[0])
		if err == nil && got != args[1] {
			err = fmt.Errorf("%s is %s, want %s; alerts:%s", args[0], got, args[1], firing(s.prometheus))
		}
		return err
	})
}

// firing returns the names of the alerts that fire.
func firing(at netip.AddrPort) string {
	got, err := http.Get("http://" + at.String() + "/api/v1/alerts")
	if err != nil {
		return " " + err.Error()
	}
	defer got.Body.Close()
	var answer struct {
		Data struct {
			Alerts []struct {
				State  string
				Labels struct{ Alertname string }
			}
		}
	}
	if err := json.NewDecoder(got.Body).Decode(&answer); err != nil {
		return " " + err.Error()
	}
	var names strings.Builder
	for _, a := range answer.Data.Alerts {
		if a.State == "firing" {
			names.WriteString(" " + a.Labels.Alertname)
		}
	}
	return names.String()
}

// query returns the value of an expression, as Prometheus writes it.
func query(at netip.AddrPort, expression string) (string, error) {
	ctx, cancel := aMinute()
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "GET", "http://"+at.String()+"/api/v1/query", nil)
	if err != nil {
		return "", err
	}
	r.URL.RawQuery = url.Values{"query": {expression}}.Encode()
	got, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	defer got.Body.Close()
	text, err := io.ReadAll(got.Body)
	if err != nil {
		return "", err
	}
	var answer struct {
		Data struct {
			Result []struct{ Value [2]any }
		}
	}
	if err := json.Unmarshal(text, &answer); err != nil || len(answer.Data.Result) != 1 {
		return "", fmt.Errorf("%s: not one value: %s", expression, text)
	}
	return fmt.Sprint(answer.Data.Result[0].Value[1]), nil
}
