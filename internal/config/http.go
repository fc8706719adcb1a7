package config

import (
	"net/netip"
	"regexp"
	"strings"
)

// http reads the listener for metrics, health and the console.
func (l *loader) http(v value) {
	c := &l.config.HTTP
	l.httpLine = v.line
	l.httpKeys = v.mapping(fields{
		"listen":         func(v value) { v.listen(&c.Listen) },
		"tls":            func(v value) { l.serverTLS(v, &c.TLS) },
		"console":        func(v value) { v.boolean(&c.Console) },
		"anonymous_role": func(v value) { v.oneOf(&c.AnonymousRole, "none", "viewer") },
		"hosts":          func(v value) { c.Hosts = hostsOf(v) },
	})
}

// serverTLS reads the files of a TLS listener whose clients show no certificates.
func (l *loader) serverTLS(v value, c *ServerTLS) {
	v.mapping(fields{
		"cert_file": func(v value) { v.file(l.dir, &c.CertFile) },
		"key_file":  func(v value) { v.privateFile(l.dir, &c.KeyFile) },
	})
	v.checkTLS(TLS{CertFile: c.CertFile, KeyFile: c.KeyFile})
}

// checkConsole decides whether there is a console where that is not written, and who reads it without
// a sign-in: on loopback whoever reads over gRPC there, because it names subscribers.
func (l *loader) checkConsole() {
	c, v := &l.config.HTTP, value{report: l.report, key: "http", line: l.httpLine}
	machine, readers := local(c.Listen), l.config.GRPC.localUsersRead()
	canSignIn := l.config.GRPC.hasToken() && (machine || c.TLS.CertFile != "")
	if !l.httpKeys["anonymous_role"] {
		c.AnonymousRole = "none"
		if machine && readers || !machine && c.TLS.CertFile == "" { // nobody can sign in there
			c.AnonymousRole = "viewer"
		}
	}
	open := c.AnonymousRole == "viewer"
	if !l.httpKeys["console"] {
		c.Console = machine && (open || canSignIn)
	}
	switch {
	case !c.Console:
	case !open && !canSignIn:
		v.child("console").warnf("nobody can read it: who has not signed in reads nothing, and nobody can sign in; write a token_file in grpc.roles%s",
			either(machine || c.TLS.CertFile != "", "", ", and http.tls"))
	case open && !machine:
		v.child("console").warnf("whoever reaches %s reads who is online, with addresses and sessions; let a packet filter admit the NOC alone, listen on 127.0.0.1, or set http.tls, which needs a sign-in", c.Listen)
	case open && !readers:
		v.child("console").warnf("every user of this machine reads at %s who is online, with addresses and sessions, which grpc does not let them; write anonymous_role: none where users are not trusted", c.Listen)
	}
}

func either(condition bool, then, otherwise string) string {
	if condition {
		return then
	}
	return otherwise
}

// localUsersRead reports whether users of this machine may read over gRPC. Roles take that
// from users of a unix socket; those over loopback TCP have local_role beside any roles.
func (c *GRPC) localUsersRead() bool {
	byGroup := strings.HasPrefix(c.Listen, "unix:") && len(c.Roles) > 0
	return local(c.Listen) && c.LocalRole != "none" && c.TLS.ClientCAFile == "" && !byGroup
}

var hostName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$`)

// hostsOf reads host names and addresses, as browsers write them without a port.
func hostsOf(v value) (hosts []string) {
	for _, e := range v.list() {
		name, ok := e.scalar()
		_, notAddress := netip.ParseAddr(name)
		switch {
		case !ok:
		case notAddress != nil && !hostName.MatchString(name):
			e.errorf("%q is no host name; write it without scheme, port and path, such as cgn1.noc.example", name)
		default:
			hosts = append(hosts, name)
		}
	}
	return hosts
}
