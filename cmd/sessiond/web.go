package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	stdlog "log"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/console"
	"github.com/sessiond/sessiond/internal/keyfiles"
	"github.com/sessiond/sessiond/internal/quota"
	"github.com/sessiond/sessiond/internal/throttle"
)

// web serves /metrics, /healthz and /readyz, and the pages of the console where there is one.
type web struct {
	listener    net.Listener
	server      *http.Server
	certificate *keyfiles.Certificate // nil without TLS
	usable      func(bool)            // notes whether its files can be used
	log         *slog.Logger
}

// newWeb serves on a listener, with TLS if there is a certificate.
func newWeb(l net.Listener, certificate *keyfiles.Certificate, metrics, pages http.Handler, notReady func() error, log *slog.Logger) *web {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := notReady(); err != nil {
			http.Error(w, "not ready: "+err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	if pages != nil {
		mux.Handle(console.Path, pages)
		mux.Handle("GET /{$}", http.RedirectHandler(console.Path, http.StatusFound))
	}
	w := &web{
		certificate: certificate, usable: func(bool) {}, log: log,
		listener: &webListener{l, quota.New(webConnections, webConnectionsPerPeer)},
		server: &http.Server{
			Handler: mux, ReadHeaderTimeout: webHeader, ReadTimeout: webRequest, WriteTimeout: webReply, IdleTimeout: webIdle,
			MaxHeaderBytes: webHeaders, ErrorLog: stdlog.New(&thinWriter{log: log}, "", 0),
		},
	}
	if certificate != nil {
		w.server.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: certificate.Get}
	}
	return w
}

// Limits of callers. The answer to a scrape with a million subscribers takes a
// second.
const (
	webConnections        = 128
	webConnectionsPerPeer = 32
	webHeader             = 5 * time.Second
	webRequest            = 10 * time.Second
	webReply              = 30 * time.Second
	webIdle               = 2 * time.Minute // above the interval of scrapes
	webHeaders            = 16 << 10        // octets
)

// webListener closes connections beyond the limits.
type webListener struct {
	net.Listener
	quota *quota.Quota
}

// Accept implements net.Listener.
func (l *webListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		peer := c.RemoteAddr().String()
		if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
			peer = quota.PeerOf(a)
		}
		if l.quota.Enter(peer) == "" {
			return &webConn{Conn: c, leave: sync.OnceFunc(func() { l.quota.Leave(peer) })}, nil
		}
		_ = c.Close()
	}
}

// webConn leaves the quota when it ends.
type webConn struct {
	net.Conn
	leave func()
}

// Close implements net.Conn.
func (c *webConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

// thinWriter writes the library's messages about callers' mistakes into our
// log, at a bounded rate.
type thinWriter struct {
	log  *slog.Logger
	thin throttle.Throttle
}

// Write implements io.Writer.
func (w *thinWriter) Write(line []byte) (int, error) {
	if suppressed, ok := w.thin.Allow(time.Now()); ok {
		w.log.Warn("http", "error", strings.TrimSpace(string(line)), "suppressed", suppressed)
	}
	return len(line), nil
}

// run serves until ctx ends.
func (w *web) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var beside sync.WaitGroup
	defer beside.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = w.server.Close() })()
	serve := w.server.Serve
	if w.certificate != nil {
		beside.Go(func() { keyfiles.Watch(ctx, w.log, w.usable, w.certificate.Set()) })
		serve = func(l net.Listener) error { return w.server.ServeTLS(l, "", "") }
	}
	if err := serve(w.listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
