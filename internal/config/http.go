package config

import (
	"net/netip"
	"regexp"
	"strings"
)

// http reads the listener for metrics, health and the console.
func (l *loader) http(v value) {
	c := &l.config.HTTP
	keys := v.mapping(fields{
		"listen":  func(v value) { v.listen(&c.Listen) },
		"console": func(v value) { v.boolean(&c.Console) },
		"hosts":   func(v value) { c.Hosts = hostsOf(v) },
	})
	if keys["console"] {
		l.console = v.line
	}
}

// checkConsole decides whether there is a console where that is not written: not where
// it would tell anybody more than gRPC does, because it names subscribers and has no sign-in.
func (l *loader) checkConsole() {
	c, v := &l.config, value{report: l.report, key: "http.console", line: l.console}
	if l.console == 0 {
		c.HTTP.Console = local(c.HTTP.Listen) && c.GRPC.localUsersRead()
		return
	}
	switch {
	case !c.HTTP.Console:
	case !local(c.HTTP.Listen):
		v.warnf("whoever reaches %s reads who is online, with addresses and sessions; let a packet filter admit the NOC alone, or listen on 127.0.0.1", c.HTTP.Listen)
	case !c.GRPC.localUsersRead():
		v.warnf("every user of this machine reads at %s who is online, with addresses and sessions, which grpc does not let them; write console: false where users are not trusted", c.HTTP.Listen)
	}
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
