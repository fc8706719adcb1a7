package redisconn

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http/httptest"
	"syscall"
	"testing"
)

// TestGivenUp: a connection that has to be redialled fails the client's check, with TLS
// too; a newer one does not. Neither is closed or changed otherwise.
func TestGivenUp(t *testing.T) {
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	trusted := x509.NewCertPool()
	trusted.AddCert(server.Certificate())
	for name, secure := range map[string]*tls.Config{
		"plain": nil,
		"TLS":   {RootCAs: trusted, ServerName: "example.com", MinVersion: tls.VersionTLS12},
	} {
		r := &redials{}
		dial := func() net.Conn {
			c, err := r.dialer(0, secure)(t.Context(), "tcp", server.Listener.Addr().String())
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			t.Cleanup(func() { _ = c.Close() })
			return c
		}
		check := func(c net.Conn) error {
			raw, err := c.(syscall.Conn).SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			return raw.Read(func(uintptr) bool { return true })
		}
		before := dial()
		if err := check(before); err != nil {
			t.Errorf("%s: a good connection: %v", name, err)
		}
		r.abandonConns()
		if err := check(before); !errors.Is(err, errGivenUp) {
			t.Errorf("%s: a connection that was given up: %v", name, err)
		}
		if err := check(dial()); err != nil {
			t.Errorf("%s: one that was dialled since: %v", name, err)
		}
		if _, err := before.Write([]byte("x")); err != nil {
			t.Errorf("%s: what was under way was cut off: %v", name, err)
		}
	}
}
