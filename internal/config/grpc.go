package config

import (
	"net"
	"net/netip"
	"strings"
	"time"
)

// The default listeners of gRPC. A daemon with another Listen has no
// DefaultSocket by default, because two daemons on one machine would conflict
// over it. A DefaultSocket that cannot be created is no error.
const (
	DefaultSocket = "/run/sessiond/grpc.sock"
	defaultListen = "127.0.0.1:7900"
)

func (l *loader) grpc(v value) {
	c := &l.config.GRPC
	keys := v.mapping(fields{
		"listen":           func(v value) { v.listenOrUnix(&c.Listen) },
		"socket":           func(v value) { v.socket(&c.Socket) },
		"socket_group":     func(v value) { v.name(&c.SocketGroup) },
		"local_role":       func(v value) { v.oneOf(&c.LocalRole, "none", "viewer", "operator", "admin") },
		"roles":            l.roles,
		"tls":              func(v value) { v.mapping(l.tls(&c.TLS)); v.checkTLS(c.TLS) },
		"insecure":         func(v value) { v.boolean(&c.Insecure) },
		"insecure_clients": func(v value) { v.boolean(&c.InsecureClients) },

		"max_connections":          func(v value) { v.positive(&c.MaxConnections) },
		"max_connections_per_peer": func(v value) { v.positive(&c.MaxConnectionsPerPeer) },
		"max_streams":              func(v value) { v.positive(&c.MaxStreams) },
		"max_streams_per_peer":     func(v value) { v.positive(&c.MaxStreamsPerPeer) },
		"stall_timeout":            func(v value) { v.duration(&c.StallTimeout, time.Second) },
		"call_timeout":             func(v value) { v.duration(&c.CallTimeout, time.Second) },
	})
	if c.Listen != defaultListen && !keys["socket"] {
		c.Socket = ""
	}
	if !local(c.Listen) {
		v.checkReach(c)
	}
	checkRoles(v, c, keys)
}

// checkReach reports a listener that other machines can reach without
// authentication.
func (v value) checkReach(c *GRPC) {
	switch {
	case c.TLS.CertFile == "" && !c.Insecure:
		v.child("listen").errorf("%s can be reached from elsewhere in plain text; set grpc.tls, listen on 127.0.0.1, or write insecure: true", c.Listen)
	case c.TLS.CertFile == "" && len(c.Roles) > 0:
		v.child("insecure").warnf("whoever reaches %s has no role there, because grpc.roles believes nothing in plain text; set grpc.tls", c.Listen)
	case c.TLS.CertFile == "":
		v.child("insecure").warnf("whoever reaches %s can end every subscriber; set grpc.tls with client_ca_file", c.Listen)
	case c.TLS.ClientCAFile == "" && c.hasToken(): // whoever has none has no role
	case c.TLS.ClientCAFile == "" && !c.InsecureClients:
		v.child("tls.client_ca_file").errorf("is missing: TLS alone lets everybody who reaches %s end every subscriber; write client_ca_file, listen on 127.0.0.1 or unix:PATH, or write grpc.insecure_clients: true", c.Listen)
	case c.TLS.ClientCAFile == "" && len(c.Roles) == 0:
		v.child("insecure_clients").warnf("whoever reaches %s can end every subscriber; set grpc.tls.client_ca_file", c.Listen)
	}
}

// socket reads the absolute path of a unix socket; empty is none.
func (v value) socket(to *string) {
	s, ok := v.scalar()
	switch {
	case !ok:
	case s != "" && !strings.HasPrefix(s, "/"):
		v.errorf("%q is not an absolute path; write one such as %s, or an empty one for none", s, DefaultSocket)
	case len(s) > maxSocketPath:
		v.errorf("%s is longer than the %d octets that the path of a socket may have", s, maxSocketPath)
	default:
		*to = s
	}
}

// maxSocketPath is the kernel's sun_path without the closing NUL (unix(7)).
const maxSocketPath = 107

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
	case len(path) > maxSocketPath:
		v.errorf("%s is longer than the %d octets that the path of a socket may have", path, maxSocketPath)
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
		"key_file":       func(v value) { v.privateFile(l.dir, &c.KeyFile) },
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
