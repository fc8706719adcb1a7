package main

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// TestIdleCallersOfMetricsAreBounded_I10: a peer with idle connections is
// bounded in their number, and another peer is served.
func TestIdleCallersOfMetricsAreBounded_I10(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := newWeb(l, http.NotFoundHandler(), nil, func() error { return nil }, slog.New(slog.DiscardHandler))
	if s := w.server; s.ReadHeaderTimeout <= 0 || s.ReadTimeout <= 0 || s.WriteTimeout <= 0 || s.IdleTimeout <= 0 {
		t.Errorf("a time is unbounded: %+v", s)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	open := 0
	for range 2 * webConnectionsPerPeer {
		c := connectFrom(t, "127.0.0.1", l.Addr().String())
		if answered(c) {
			open++
		}
	}
	if open != webConnectionsPerPeer {
		t.Errorf("one peer has %d connections, not %d", open, webConnectionsPerPeer)
	}
	if !answered(connectFrom(t, "127.0.0.2", l.Addr().String())) {
		t.Error("another peer is not answered")
	}
}

func connectFrom(t *testing.T, source, address string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
	c, err := d.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// answered sends one request, and leaves the connection open.
func answered(c net.Conn) bool {
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return false
	}
	if _, err := io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		return false
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err == nil && resp.StatusCode == http.StatusOK
}

// TestConsoleBesideMetrics: the root leads to the console where there is one, and to nothing
// elsewhere. Metrics are served to callers by any name, as scrapers use.
func TestConsoleBesideMetrics(t *testing.T) {
	ok := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.URL.Path) })
	for _, c := range []struct {
		pages  http.Handler
		path   string
		code   int
		answer string // location, or body
	}{
		{ok, "/", http.StatusFound, "/console/"},
		{ok, "/console/", http.StatusOK, "/console/"},
		{ok, "/console/subscribers", http.StatusOK, "/console/subscribers"},
		{ok, "/other", http.StatusNotFound, ""},
		{ok, "/metrics", http.StatusOK, "/metrics"},
		{nil, "/", http.StatusNotFound, ""},
		{nil, "/console/", http.StatusNotFound, ""},
		{nil, "/metrics", http.StatusOK, "/metrics"},
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
		w := newWeb(l, ok, c.pages, func() error { return nil }, slog.New(slog.DiscardHandler))
		r := httptest.NewRequest("GET", c.path, nil)
		r.Host = "cgn1"
		got := httptest.NewRecorder()
		w.server.Handler.ServeHTTP(got, r)
		answer := got.Body.String()
		if got.Code/100 == 3 {
			answer = got.Header().Get("Location")
		}
		if got.Code != c.code || c.answer != "" && answer != c.answer {
			t.Errorf("%s, console %v: status %d, %q", c.path, c.pages != nil, got.Code, answer)
		}
	}
}
