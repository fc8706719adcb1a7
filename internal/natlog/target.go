package natlog

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"io"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Protocol is what a collector speaks.
type Protocol string

// The protocols.
const (
	IPFIX    Protocol = "ipfix"    // RFC 7011 with the events of RFC 8158, over UDP, TCP or TLS
	NetFlow9 Protocol = "netflow9" // RFC 3954 with the same, over UDP
	Syslog   Protocol = "syslog"   // RFC 5424 over UDP (RFC 5426), TCP (RFC 6587) or TLS (RFC 5425)
	HTTP     Protocol = "http"     // lines of JSON in the body of a POST
)

// ports are the schemes of a protocol's targets, and their ports where a target has none.
var ports = map[Protocol]map[string]string{
	IPFIX:    {"udp": "4739", "tcp": "4739", "tls": "4740"},
	NetFlow9: {"udp": "2055"},
	Syslog:   {"udp": "514", "tcp": "514", "tls": "6514"},
	HTTP:     {"http": "80", "https": "443"},
}

// target is the address of a collector.
type target struct {
	scheme, host string
	address      string // with the port
	url, shown   string // of HTTP; shown has no query
}

// String returns the address without a query, which may have a secret.
func (t *target) String() string {
	if t.url != "" {
		return t.shown
	}
	return t.scheme + "://" + t.address
}

// TargetName returns a name of a valid target, for people: of one with a query, a hash stands for
// that.
func TargetName(p Protocol, text string) string {
	t, err := parseTarget(p, text)
	if err != nil {
		return string(p)
	}
	return t.String()
}

// CheckTarget returns an error that says how a target of a protocol is written, if this is none.
func CheckTarget(p Protocol, text string) error {
	_, err := parseTarget(p, text)
	return err
}

func parseTarget(p Protocol, text string) (*target, error) {
	known, ok := ports[p]
	if !ok {
		return nil, fmt.Errorf("the protocol %q is unknown; it is ipfix, netflow9, syslog or http", p)
	}
	schemes := make([]string, 0, len(known))
	for scheme := range known {
		schemes = append(schemes, scheme+"://")
	}
	slices.Sort(schemes)
	u, err := url.Parse(text)
	if err == nil {
		u.Host = strings.ToLower(u.Host)
	}
	if err != nil && !strings.Contains(text, "@") {
		return nil, fmt.Errorf("the collector %q is no address; write %sHOST:PORT", text, schemes[0])
	}
	if err != nil {
		return nil, fmt.Errorf("the collector is no address; write %sHOST:PORT", schemes[0])
	}
	port, ok := known[u.Scheme]
	switch {
	case u.User != nil:
		return nil, fmt.Errorf("the collector %q has a user or password in its address, which logs would show; leave it out", u.Redacted())
	case !ok:
		return nil, fmt.Errorf("the collector %q of %s begins with none of %s", text, p, strings.Join(schemes, ", "))
	case u.Hostname() == "":
		return nil, fmt.Errorf("the collector %q has no host; write %s://HOST:PORT", text, u.Scheme)
	}
	if u.Port() != "" {
		if n, err := strconv.ParseUint(u.Port(), 10, 16); err != nil || n == 0 {
			return nil, fmt.Errorf("the collector %q has the port %s; it must be 1 to 65535", text, u.Port())
		}
	}
	t := &target{scheme: u.Scheme, host: u.Hostname(), address: net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), port))}
	if p == HTTP {
		t.url = u.String()
		if u.RawQuery != "" {
			h := fnv.New32a()
			_, _ = io.WriteString(h, u.RawQuery)
			u.RawQuery = fmt.Sprintf("query-%08x", h.Sum32())
		}
		t.shown = u.String()
		return t, nil
	}
	if u.Path != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("the collector %q has more than a host and a port; write %s://HOST:PORT", text, u.Scheme)
	}
	return t, nil
}
