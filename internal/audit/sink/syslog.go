package sink

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"os"
	"time"
)

// syslogWithin bounds the wait for a syslog server.
const syslogWithin = 5 * time.Second

// priority is facility log audit (13) and severity notice (5) of RFC 5424 section 6.2.1.
const priority = 13*8 + 5

// syslog sends messages in the form of RFC 5424: over TCP and TLS with their length in front
// (RFC 6587 section 3.4.1), else a datagram each.
type syslog struct {
	network, address string
	secure           bool
	node             string
	conn             net.Conn // nil until it is needed
}

// NewSyslog returns a Writer to a syslog server: unix:/dev/log, udp://HOST:PORT,
// tcp://HOST:PORT or tls://HOST:PORT, of which the ports may be left out.
func NewSyslog(target, node string) (Writer, error) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, fmt.Errorf("audit syslog: %w", err)
	}
	w := &syslog{node: node}
	port := "514"
	switch u.Scheme {
	case "unix":
		w.network, w.address = "unixgram", cmp.Or(u.Opaque, u.Path)
		if w.address == "" {
			return nil, fmt.Errorf("audit syslog: %q has no path; write unix:/dev/log", target)
		}
		return w, nil
	case "udp", "tcp":
		w.network = u.Scheme
	case "tls":
		w.network, w.secure, port = "tcp", true, "6514"
	default:
		return nil, fmt.Errorf("audit syslog: %q begins with none of unix:, udp://, tcp:// and tls://", target)
	}
	if u.Hostname() == "" || u.Path != "" || u.RawQuery != "" {
		return nil, fmt.Errorf("audit syslog: %q is not of the form %s://HOST:PORT", target, u.Scheme)
	}
	w.address = net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), port))
	return w, nil
}

// Write implements Writer.
func (w *syslog) Write(ctx context.Context, entries []Line) error {
	if err := w.dial(ctx); err != nil {
		return fmt.Errorf("audit syslog: %w", err)
	}
	for _, e := range entries {
		if err := w.send(e); err != nil {
			_ = w.Close()
			return fmt.Errorf("audit syslog: %w", err)
		}
	}
	return nil
}

func (w *syslog) dial(ctx context.Context) error {
	if w.conn != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, syslogWithin)
	defer cancel()
	var err error
	if w.secure {
		w.conn, err = (&tls.Dialer{Config: &tls.Config{MinVersion: tls.VersionTLS12}}).DialContext(ctx, w.network, w.address)
	} else {
		w.conn, err = (&net.Dialer{}).DialContext(ctx, w.network, w.address)
	}
	if err != nil {
		w.conn = nil
	}
	return err
}

func (w *syslog) send(e Line) error {
	if err := w.conn.SetWriteDeadline(time.Now().Add(syslogWithin)); err != nil {
		return err
	}
	_, err := w.conn.Write([]byte(w.message(e)))
	return err
}

// message returns a message as it goes over the connection.
func (w *syslog) message(e Line) string {
	text := fmt.Sprintf("<%d>1 %s %s sessiond %d audit - %s",
		priority, e.At.UTC().Format("2006-01-02T15:04:05.000000Z07:00"), cmp.Or(w.node, "-"), os.Getpid(), e.Text)
	if w.network == "tcp" {
		return fmt.Sprintf("%d %s", len(text), text)
	}
	return text
}

// Close implements Writer.
func (w *syslog) Close() error {
	if w.conn == nil {
		return nil
	}
	err := w.conn.Close()
	w.conn = nil
	return err
}
