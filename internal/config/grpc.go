package config

import (
	"net"
	"net/netip"
	"strings"
	"time"
)

func (l *loader) grpc(v value) {
	c := &l.config.GRPC
	v.mapping(fields{
		"listen":   func(v value) { v.listenOrUnix(&c.Listen) },
		"tls":      func(v value) { v.mapping(l.tls(&c.TLS)); v.checkTLS(c.TLS) },
		"insecure": func(v value) { v.boolean(&c.Insecure) },

		"max_connections":          func(v value) { v.positive(&c.MaxConnections) },
		"max_connections_per_peer": func(v value) { v.positive(&c.MaxConnectionsPerPeer) },
		"max_streams":              func(v value) { v.positive(&c.MaxStreams) },
		"max_streams_per_peer":     func(v value) { v.positive(&c.MaxStreamsPerPeer) },
		"stall_timeout":            func(v value) { v.duration(&c.StallTimeout, time.Second) },
	})
	if c.TLS.CertFile == "" && !c.Insecure && !local(c.Listen) {
		v.child("listen").errorf("%s can be reached from elsewhere in plain text; set grpc.tls, listen on 127.0.0.1, or write insecure: true", c.Listen)
	}
}

func (v value) listenOrUnix(to *string) {
	s, ok := v.scalar()
	if !ok {
		return
	}
	path, unix := strings.CutPrefix(s, "unix:")
	switch {
	case !unix:
		v.listen(to)
	case path == "":
		v.errorf("unix: lacks the path of the socket")
	default:
		*to = s
	}
}

// local reports whether only this machine can reach the listener.
func local(listen string) bool {
	if strings.HasPrefix(listen, "unix:") {
		return true
	}
	host, _, _ := net.SplitHostPort(listen)
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

// tls returns the keys that name the files of a TLS listener.
func (l *loader) tls(c *TLS) fields {
	return fields{
		"cert_file":      func(v value) { v.file(l.dir, &c.CertFile) },
		"key_file":       func(v value) { v.file(l.dir, &c.KeyFile) },
		"client_ca_file": func(v value) { v.file(l.dir, &c.ClientCAFile) },
	}
}

// checkTLS reports files that are missing beside others.
func (v value) checkTLS(c TLS) {
	switch {
	case (c.CertFile == "") != (c.KeyFile == ""):
		v.errorf("has one of cert_file and key_file; TLS needs both")
	case c.ClientCAFile != "" && c.CertFile == "":
		v.errorf("has client_ca_file without cert_file and key_file; TLS needs these")
	}
}
