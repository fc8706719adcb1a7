package config

import (
	"net/netip"
	"regexp"
)

// http reads the listener for metrics, health and the console. Off loopback there is no console
// unless it is written, because it names subscribers.
func (l *loader) http(v value) {
	c := &l.config.HTTP
	keys := v.mapping(fields{
		"listen":  func(v value) { v.listen(&c.Listen) },
		"console": func(v value) { v.boolean(&c.Console) },
		"hosts":   func(v value) { c.Hosts = hostsOf(v) },
	})
	switch {
	case local(c.Listen):
	case !keys["console"]:
		c.Console = false
	case c.Console:
		v.child("console").warnf("whoever reaches %s reads who is online, with addresses and sessions; let a packet filter admit the NOC alone, or listen on 127.0.0.1", c.Listen)
	}
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
