package access

import (
	"errors"
	"fmt"
	"slices"
)

// Way is how a connection comes in, which decides by what its caller is known.
type Way uint8

// The ways.
const (
	Open        Way = iota // from anywhere, without a certificate
	Certificate            // with a certificate of a trusted CA
	Socket                 // over a unix socket
	Loopback               // over loopback, without a certificate: any user of this machine
)

// Caller is the other end of a connection.
type Caller struct {
	Way     Way
	Source  string   // the peer's address, or "unix"
	Private bool     // nobody else can read the connection, so that it may carry a token
	User    *uint32  // of this machine, where the kernel tells it; optional
	Groups  []uint32 // of that user
	SANs    []string // of the certificate, by SANs
	Subject string   // of the certificate, which names a caller without SANs
}

// Grant gives a role to whoever is known by one of a SAN, a group or tokens.
type Grant struct {
	Role   Role
	SAN    string  // by ParseSAN; optional
	Group  *uint32 // of this machine; optional
	Name   string  // of the tokens' holder
	Tokens []Token // optional
}

// Policy gives callers their roles. Its zero value trusts those who can open
// the listener, apart from local users over TCP, who have no role.
type Policy struct {
	Root  uint32  // user of this machine who may do everything beside user 0: the daemon's own
	Local Role    // of a caller by way of Loopback
	Given []Grant // if empty, callers by the other ways may do everything
}

// Actor returns the caller of a connection, for calls without a token.
func (p *Policy) Actor(c *Caller) Actor {
	a := Actor{Name: c.name(), Source: c.Source}
	switch {
	case c.Way == Loopback:
		a.Role = p.Local
	case len(p.Given) == 0 || c.Way == Socket && c.User != nil && (*c.User == 0 || *c.User == p.Root):
		a.Role = Admin
	case c.Way == Certificate:
		for _, g := range p.Given {
			if g.SAN != "" && g.Role > a.Role && slices.Contains(c.SANs, g.SAN) {
				a.Name, a.Role = "san:"+g.SAN, g.Role
			}
		}
	case c.Way == Socket:
		for _, g := range p.Given {
			if g.Group != nil && slices.Contains(c.Groups, *g.Group) {
				a.Role = max(a.Role, g.Role)
			}
		}
	}
	return a
}

// name tells who the caller is, as far as that is known.
func (c *Caller) name() string {
	switch {
	case c.Way == Certificate && len(c.SANs) > 0:
		return "san:" + c.SANs[0]
	case c.Way == Certificate:
		return "subject:" + c.Subject
	case c.User != nil:
		return fmt.Sprintf("user:%d", *c.User)
	case c.Way == Open:
		return "anonymous"
	}
	return "local"
}

// Errors of tokens.
var (
	ErrTokenUnknown = errors.New("the token of the call is not known here; look into grpc.roles, and whether its file was changed")
	ErrTokenExposed = errors.New("a token is not believed over plain text that others can read, and has to be replaced now; use TLS, the unix socket, or loopback")
)

// TokenActor returns the holder of a token, for a call with that token, which
// counts in place of the caller's own rights.
func (p *Policy) TokenActor(t Token, c *Caller) (Actor, error) {
	if !c.Private {
		return Actor{}, ErrTokenExposed
	}
	var found *Grant
	for i := range p.Given { // all of them, whichever is found
		for _, known := range p.Given[i].Tokens {
			if known.equal(t) {
				found = &p.Given[i]
			}
		}
	}
	if found == nil {
		return Actor{}, ErrTokenUnknown
	}
	return Actor{Name: "token:" + found.Name, Role: found.Role, Source: c.Source}, nil
}
