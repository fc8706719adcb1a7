package sink

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"syscall"
	"time"

	"github.com/sessiond/sessiond/internal/clock"
	"github.com/sessiond/sessiond/internal/sendqueue"
)

const (
	syslogWithin = 5 * time.Second  // bounds a connect to a syslog server, and a write
	closeWithin  = 30 * time.Second // bounds the wait for the server to have read a batch
)

// priority is facility log audit (13) and severity notice (5) of RFC 5424 section 6.2.1.
const priority = 13*8 + 5

// syslog sends messages in the form of RFC 5424: over TCP and TLS with their length in front
// (RFC 6587 section 3.4.1), else a datagram each.
//
// Syslog has no acknowledgment, and what is written to a connection whose peer is gone is lost
// without an error. So each batch has a stream of its own, and counts as written once the server
// has closed it in turn: TCP resets a stream that is closed with data unread.
type syslog struct {
	network, address string
	secure           *tls.Config // of tls://; nil for all others
	node             string
	conn             net.Conn // nil until it is needed; of TCP and TLS for one batch
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
		w.network, w.secure, port = "tcp", &tls.Config{MinVersion: tls.VersionTLS12}, "6514"
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
	err := w.write(ctx, entries)
	if err != nil || w.network == "tcp" {
		err = errors.Join(err, w.Close())
	}
	if err != nil {
		return fmt.Errorf("audit syslog: %w", err)
	}
	return nil
}

func (w *syslog) write(ctx context.Context, entries []Line) error {
	if err := w.dial(ctx); err != nil {
		return err
	}
	conn := w.conn
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	for _, e := range entries {
		if err := w.send(ctx, e); err != nil {
			return err
		}
	}
	if w.network == "tcp" {
		return w.finish(ctx)
	}
	return nil
}

// finish ends the stream, and waits for the server to end it too.
func (w *syslog) finish(ctx context.Context) error {
	stream := w.conn
	if secure, ok := stream.(*tls.Conn); ok {
		if err := secure.CloseWrite(); err != nil {
			return err
		}
		stream = secure.NetConn()
	}
	if half, ok := stream.(*net.TCPConn); ok {
		if err := half.CloseWrite(); err != nil {
			return err
		}
	}
	if err := w.conn.SetReadDeadline(time.Now().Add(closeWithin)); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil { // before the deadline
		return err
	}
	_, err := io.Copy(io.Discard, w.conn)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil || errors.Is(err, io.ErrUnexpectedEOF): // of a TLS server that closes without a word
		return acknowledged(ctx, stream)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%s has not closed the connection %v after its end, so it may not have read all", w.address, closeWithin)
	}
	return err
}

func (w *syslog) dial(ctx context.Context) error {
	if w.conn != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, syslogWithin)
	defer cancel()
	var err error
	if w.secure != nil {
		w.conn, err = (&tls.Dialer{Config: w.secure}).DialContext(ctx, w.network, w.address)
	} else {
		w.conn, err = (&net.Dialer{}).DialContext(ctx, w.network, w.address)
	}
	if err != nil {
		w.conn = nil
	}
	return err
}

// acknowledged waits for the peer's kernel to have all octets of a stream that the peer has
// ended: its end may have crossed them on the way, and then they are refused.
func acknowledged(ctx context.Context, stream net.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, syslogWithin)
	defer cancel()
	for {
		if left, err := sendqueue.Unconfirmed(stream.(syscall.Conn)); err != nil || left == 0 {
			return err
		}
		if err := clock.Sleep(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
}

func (w *syslog) send(ctx context.Context, e Line) error {
	if err := w.conn.SetWriteDeadline(time.Now().Add(syslogWithin)); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil { // before the deadline
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
