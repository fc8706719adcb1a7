package main

import (
	"context"
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
	"github.com/sessiond/sessiond/internal/quota"
	"github.com/sessiond/sessiond/internal/throttle"
)

// web serves /metrics, /healthz and /readyz, and the pages of the console where there is one.
type web struct {
	listener net.Listener
	server   *http.Server
}

func newWeb(l net.Listener, metrics, pages http.Handler, notReady func() error, log *slog.Logger) *web {
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
	return &web{
		listener: &webListener{l, quota.New(webConnections, webConnectionsPerPeer)},
		server: &http.Server{
			Handler: mux, ReadHeaderTimeout: webHeader, ReadTimeout: webRequest, WriteTimeout: webReply, IdleTimeout: webIdle,
			MaxHeaderBytes: webHeaders, ErrorLog: stdlog.New(&thinWriter{log: log}, "", 0),
		},
	}
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
	stop := context.AfterFunc(ctx, func() { _ = w.server.Close() })
	defer stop()
	if err := w.server.Serve(w.listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
