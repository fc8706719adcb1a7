package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/control/controltest"
	"github.com/sessiond/sessiond/internal/keyfiles"
	"github.com/sessiond/sessiond/internal/testenv"
)

// runWeb runs a server until the test ends.
func runWeb(t *testing.T, w *web) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestIdleCallersOfMetricsAreBounded_I10: a peer with idle connections is
// bounded in their number, and another peer is served.
func TestIdleCallersOfMetricsAreBounded_I10(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := newWeb(l, nil, http.NotFoundHandler(), nil, func() error { return nil }, slog.New(slog.DiscardHandler))
	if s := w.server; s.ReadHeaderTimeout <= 0 || s.ReadTimeout <= 0 || s.WriteTimeout <= 0 || s.IdleTimeout <= 0 {
		t.Errorf("a time is unbounded: %+v", s)
	}
	runWeb(t, w)
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
		w := newWeb(l, nil, ok, c.pages, func() error { return nil }, slog.New(slog.DiscardHandler))
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

// TestWebOverTLS: with a certificate everything is served over TLS, by HTTP/2 to those who speak it, and a
// new certificate is in force within seconds, without a failed request.
func TestWebOverTLS(t *testing.T) {
	t.Parallel()
	certs := controltest.MakeCerts(t)
	certificate, err := keyfiles.OpenCertificate(certs.Server, certs.ServerKey)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ok := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) })
	w := newWeb(l, certificate, ok, ok, func() error { return nil }, slog.New(slog.DiscardHandler))
	runWeb(t, w)
	ca, err := os.ReadFile(certs.CA)
	if err != nil {
		t.Fatal(err)
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(ca)
	// Each request has a connection of its own.
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: trusted}, ForceAttemptHTTP2: true, DisableKeepAlives: true,
	}}
	serial := func() string {
		resp, err := client.Get("https://" + l.Addr().String() + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "HTTP/2.0" {
			t.Fatalf("answered %q, %v", body, err)
		}
		return resp.TLS.PeerCertificates[0].SerialNumber.String()
	}
	first := serial()
	cert, key := certs.Issue(t, x509.Certificate{})
	for from, to := range map[string]string{cert: certs.Server, key: certs.ServerKey} {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	testenv.Eventually(t, "the new certificate", func() bool { return serial() != first })
	if resp, err := http.Get("http://" + l.Addr().String() + "/metrics"); err == nil {
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("plain HTTP is answered with status %d", resp.StatusCode)
		}
	}
}
