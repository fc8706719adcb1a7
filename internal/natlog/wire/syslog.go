package wire

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/rawtext"
)

// ExamplePEN is the private enterprise number of documentation (RFC 5612).
const ExamplePEN = 32473

const (
	syslogSize = 2048 // octets that a receiver should accept (RFC 5424 section 6.1)
	syslogText = 150  // octets of each text in a message that would be longer
	facility   = 16   // local0 (RFC 5424 section 6.2.1)
	notice     = 5    // severities
	info       = 6
)

var messageIDs = [...]string{
	nat.Allocated: "block-allocated", nat.Interim: "block-interim", nat.Released: "block-released",
	nat.AddressesExhausted: "addresses-exhausted", nat.PortsExhausted: "ports-exhausted", nat.LimitReached: "limit-reached",
}

// Syslog writes events as messages of RFC 5424, with structured data alone.
type Syslog struct {
	PEN       uint32 // private enterprise number in the SD-ID; ExamplePEN is for documentation only
	Node      string // HOSTNAME
	ProcessID int
}

// Append appends the message of an event: at most 2,048 octets of UTF-8 without control
// characters. Where a longer one would be needed its texts are cut, and cut="true" says so.
func (s *Syslog) Append(b []byte, e *nat.Event) []byte {
	begin := len(b)
	if b = s.append(b, e, false); len(b)-begin > syslogSize {
		b = s.append(b[:begin], e, true)
	}
	return b
}

func (s *Syslog) append(b []byte, e *nat.Event, cut bool) []byte {
	severity := info
	if templateOf(e.Kind) != 0 {
		severity = notice
	}
	b = append(b, '<')
	b = strconv.AppendInt(b, int64(facility*8+severity), 10)
	b = append(b, ">1 "...)
	b = appendSyslogTime(b, e.At)
	b = append(b, ' ')
	b = append(b, hostName(s.Node)...)
	b = append(b, " sessiond "...)
	b = strconv.AppendInt(b, int64(s.ProcessID), 10)
	b = append(b, ' ')
	b = append(b, messageIDs[e.Kind]...)
	b = append(b, " [nat@"...)
	b = strconv.AppendUint(b, uint64(s.PEN), 10)

	p := parameters{b, cut}
	p.text("group", e.Group)
	p.address("outside", e.Outside)
	if templateOf(e.Kind) == 0 {
		p.number("first", int(e.First))
		p.number("last", int(e.Last))
	}
	if !e.Since.IsZero() {
		p.name("since")
		p.b = append(appendSyslogTime(p.b, e.Since), '"')
	}
	if e.Kind == nat.LimitReached {
		p.text("limit", e.Limit.String())
		p.number("most", e.Most)
	}
	h := &e.Holder
	p.address("inside", h.Inside)
	p.text("user", h.UserName)
	p.text("client", h.Client)
	p.text("nas", h.NAS)
	p.address("nas-address", h.NASAddress)
	p.text("session", h.AcctSessionID)
	p.text("station", h.CallingStationID)
	for i, prefix := range h.IPv6Prefixes {
		if i == 0 || !cut {
			p.text("ipv6", prefix.String())
		}
	}
	if cut {
		p.text("cut", "true")
	}
	return append(p.b, ']')
}

func appendSyslogTime(b []byte, t time.Time) []byte {
	return t.UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z")
}

// hostName returns a HOSTNAME (RFC 5424 section 6.2.4): printable ASCII, or "-".
func hostName(node string) string {
	if node == "" || len(node) > 255 || strings.ContainsFunc(node, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "-"
	}
	return node
}

// parameters are the SD-PARAMs of a message under construction.
type parameters struct {
	b   []byte
	cut bool
}

func (p *parameters) name(name string) {
	p.b = append(p.b, ' ')
	p.b = append(p.b, name...)
	p.b = append(p.b, `="`...)
}

func (p *parameters) number(name string, n int) {
	p.name(name)
	p.b = append(strconv.AppendInt(p.b, int64(n), 10), '"')
}

func (p *parameters) address(name string, a netip.Addr) {
	if a.IsValid() {
		p.name(name)
		p.b = append(a.AppendTo(p.b), '"')
	}
}

// text appends raw octets, unless there are none. Quotes, backslashes and brackets are escaped
// (RFC 5424 section 6.3.3), and what is not printable is written as %HH.
func (p *parameters) text(name, octets string) {
	if octets == "" {
		return
	}
	text := rawtext.Of(octets)
	if p.cut {
		text = cutText(text, syslogText)
	}
	p.name(name)
	for i := range len(text) {
		if c := text[i]; c == '"' || c == '\\' || c == ']' {
			p.b = append(p.b, '\\')
		}
		p.b = append(p.b, text[i])
	}
	p.b = append(p.b, '"')
}
