package config

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/sessiond/sessiond/internal/access"
)

// roles reads the list of who may do what over gRPC.
func (l *loader) roles(v value) {
	c := &l.config.GRPC
	for _, e := range v.sequence() {
		var r GRPCRole
		keys := e.mapping(fields{
			"role":       func(v value) { v.oneOf(&r.Role, "viewer", "operator", "admin") },
			"san":        func(v value) { readSAN(v, &r.SAN) },
			"unix_group": func(v value) { v.name(&r.UnixGroup) },
			"token_file": func(v value) { readTokenFile(v, l.dir, &r) },
			"name":       func(v value) { v.name(&r.Name) },
		})
		e.require(keys, "role")
		switch known := knownBy(keys); {
		case len(known) != 1:
			e.errorf("is known by %d of san, token_file and unix_group; write one of them", len(known))
		case keys["name"] && !keys["token_file"]:
			e.child("name").errorf("is for the holder of a token_file; who has a san or unix_group is known by that")
		case keys["token_file"] && slices.ContainsFunc(c.Roles, func(other GRPCRole) bool { return other.Name == r.Name }):
			e.child("name").errorf("%s is that of another token_file; give each a name of its own", r.Name)
		}
		c.Roles = append(c.Roles, r)
	}
}

// knownBy returns the keys of a role by which its callers are known.
func knownBy(keys map[string]bool) (known []string) {
	for _, k := range []string{"san", "token_file", "unix_group"} {
		if keys[k] {
			known = append(known, k)
		}
	}
	return known
}

// readSAN reads a name in certificates.
func readSAN(v value, to *string) {
	s, ok := v.scalar()
	if !ok {
		return
	}
	san, err := access.ParseSAN(s)
	if err != nil {
		v.errorf("%q %v", s, err)
		return
	}
	*to = san
}

// readTokenFile reads the path of a file of tokens, and checks the file. Its name
// without extension is the name of the tokens' holder by default.
func readTokenFile(v value, dir string, r *GRPCRole) {
	data := v.privateFile(dir, &r.TokenFile)
	if r.TokenFile == "" {
		v.errorf("is empty; write the path of a file that has the token")
		return
	}
	if r.Name == "" {
		base := filepath.Base(r.TokenFile)
		r.Name = strings.TrimSuffix(base, filepath.Ext(base))
	}
	if data == nil {
		return
	}
	if _, err := access.ParseTokens(data); err != nil {
		v.errorf("%s %v", r.TokenFile, err)
	}
}

// checkRoles reports roles that nobody can have, and callers that have none.
func checkRoles(v value, c *GRPC, keys map[string]bool) {
	certified := c.TLS.ClientCAFile != ""
	if len(c.Roles) == 0 {
		if certified {
			v.child("roles").warnf("is missing: each certificate of %s may do everything; write roles", c.TLS.ClientCAFile)
		}
		return
	}
	var groups []string
	for _, r := range c.Roles {
		if r.SAN != "" && !certified {
			v.child("roles").warnf("nobody can show %s, as there is no grpc.tls.client_ca_file", r.SAN)
		}
		if r.UnixGroup != "" {
			groups = append(groups, r.UnixGroup)
		}
	}
	switch {
	case len(groups) == 0 && keys["socket_group"]:
		v.child("socket_group").warnf("%s can open the socket and has no role there; write roles: [{unix_group: %s, role: ...}]", c.SocketGroup, c.SocketGroup)
	case len(groups) > 0 && !keys["socket_group"]:
		c.SocketGroup = groups[0]
		fallthrough
	case len(groups) > 0:
		for _, g := range groups {
			if g != c.SocketGroup {
				v.child("roles").warnf("members of %s can open the socket only if they are in its group, %s, too", g, c.SocketGroup)
			}
		}
	}
}

// hasToken reports whether callers can show a token.
func (c *GRPC) hasToken() bool {
	return slices.ContainsFunc(c.Roles, func(r GRPCRole) bool { return r.TokenFile != "" })
}
