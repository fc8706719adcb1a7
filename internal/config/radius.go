package config

import (
	"net/netip"
	"regexp"
	"strings"
)

func (l *loader) radius(v value) {
	c := &l.config.RADIUS
	keys := v.mapping(fields{
		"listen":  func(v value) { c.Listen = v.listens() },
		"clients": l.clients,
	})
	v.require(keys, "clients")
}

// listens reads a list of host:port without repetitions.
func (v value) listens() []string {
	var all []string
	seen := map[string]bool{}
	for _, e := range v.sequence() {
		var s string
		switch {
		case !e.listen(&s):
		case seen[s] && !strings.HasSuffix(s, ":0"):
			e.errorf("%s is there twice; keep one", s)
		default:
			all = append(all, s)
		}
		seen[s] = true
	}
	return all
}

func (l *loader) clients(v value) {
	names, prefixes := map[string]bool{}, map[netip.Prefix]bool{}
	for _, e := range v.sequence() {
		c := l.client(e)
		if c.Name != "" && names[c.Name] {
			e.child("name").errorf("%s is there twice; give each client a name of its own", c.Name)
		}
		if c.Prefix.IsValid() && prefixes[c.Prefix] {
			e.child("prefix").errorf("%v is there twice; a packet must have one client", c.Prefix)
		}
		names[c.Name], prefixes[c.Prefix] = true, true
		l.config.RADIUS.Clients = append(l.config.RADIUS.Clients, c)
	}
}

var clientName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

func (l *loader) client(v value) RADIUSClient {
	var c RADIUSClient
	keys := v.mapping(fields{
		"name":   func(v value) { v.matching(&c.Name, clientName, "letters, digits, dot, dash and underscore") },
		"prefix": func(v value) { c.Prefix, _ = v.prefix() },
		"secret": func(v value) {
			if s, ok := v.scalar(); ok {
				c.Secret = v.secret(s)
			}
		},
		"secret_file": func(v value) {
			var path string
			data := v.file(l.dir, &path)
			if path == "" {
				v.errorf("is empty; write the path of a file that has the secret")
			} else if data != nil {
				c.Secret = v.secret(strings.TrimRight(string(data), "\r\n"))
			}
		},
		"require_message_authenticator": func(v value) { v.boolean(&c.RequireMessageAuthenticator) },
	})
	v.require(keys, "name", "prefix")
	switch {
	case keys["secret"] && keys["secret_file"]:
		v.child("secret_file").errorf("stands beside secret; keep one of them")
	case !keys["secret"] && !keys["secret_file"]:
		v.child("secret").errorf("is missing; write secret or secret_file")
	}
	return c
}

// secret refuses the empty secret, with which everybody could speak for the client (RFC 2865 section 3).
func (v value) secret(s string) []byte {
	if s == "" {
		v.errorf("the secret is empty; write the one that the client has")
		return nil
	}
	return []byte(s)
}

// matching reads text of a certain form.
func (v value) matching(to *string, form *regexp.Regexp, says string) {
	s, ok := v.scalar()
	switch {
	case !ok:
	case !form.MatchString(s):
		v.errorf("%q is not a name here; write %s", s, says)
	default:
		*to = s
	}
}
