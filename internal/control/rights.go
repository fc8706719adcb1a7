package control

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/sessiond/sessiond/internal/access"
	"github.com/sessiond/sessiond/internal/keyfiles"
)

// Grant gives a role to whoever is known by one of a SAN, a unix group, or a
// token.
type Grant struct {
	Role      access.Role // required
	SAN       string      // DNS name or URI of a client's certificate
	UnixGroup string      // name or number
	TokenFile string      // read again when it changes; tokens of an absent or empty one are withdrawn
	Name      string      // of the tokens' holder; required with TokenFile
}

// callerRights has the policy in force, and the token files that it is from.
type callerRights struct {
	policy atomic.Pointer[access.Policy]
	tokens []*keyfiles.Set
}

func newRights(local access.Role, grants []Grant) (*callerRights, error) {
	r := &callerRights{}
	p := &access.Policy{Root: uint32(os.Geteuid()), Local: local, Given: make([]access.Grant, len(grants))}
	r.policy.Store(p)
	for i, g := range grants {
		to := &p.Given[i]
		to.Role, to.Name = g.Role, g.Name
		switch {
		case g.SAN != "":
			san, err := access.ParseSAN(g.SAN)
			if err != nil {
				return nil, fmt.Errorf("role of SAN %q: %w", g.SAN, err)
			}
			to.SAN = san
		case g.UnixGroup != "":
			id, err := groupID(g.UnixGroup)
			if err != nil {
				return nil, fmt.Errorf("role of unix group %s: %w", g.UnixGroup, err)
			}
			group := uint32(id)
			to.Group = &group
		case g.TokenFile == "" || g.Name == "":
			return nil, errors.New("role of nobody: a Grant needs SAN, UnixGroup, or TokenFile with Name")
		}
	}
	for i, g := range grants { // only now, as each replaces the policy
		if g.TokenFile == "" {
			continue
		}
		set, err := keyfiles.Open(r.useTokens(i), g.TokenFile)
		if err != nil {
			return nil, err
		}
		r.tokens = append(r.tokens, set)
	}
	return r, nil
}

// useTokens returns a function that puts the tokens of a file in place of those
// of a grant.
func (r *callerRights) useTokens(grant int) func([]keyfiles.File) error {
	return func(files []keyfiles.File) error {
		tokens, err := readTokens(&files[0])
		if err != nil {
			return err
		}
		p := *r.policy.Load()
		p.Given = slices.Clone(p.Given)
		p.Given[grant].Tokens = tokens
		r.policy.Store(&p)
		return nil
	}
}

// readTokens returns the tokens of a file; none of a file that was removed or
// emptied, which withdraws them.
func readTokens(f *keyfiles.File) ([]access.Token, error) {
	if errors.Is(f.Err, os.ErrNotExist) || f.Err == nil && strings.TrimSpace(string(f.Data)) == "" {
		return nil, nil
	}
	if f.Err != nil {
		return nil, f.Err
	}
	tokens, err := access.ParseTokens(f.Data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Path, err)
	}
	return tokens, nil
}

// checkRoles returns an error if a method that is served has no role.
func checkRoles(services map[string]grpc.ServiceInfo) error {
	for name, service := range services {
		for _, m := range service.Methods {
			if _, err := access.Needed("/"+name+"/"+m.Name, nil); err != nil {
				return fmt.Errorf("control: %w", err)
			}
		}
	}
	return nil
}

// Roles prepares other grants, and returns a function that puts them in force:
// for the next calls, and for streams, which end where their callers have lost
// the role for them.
func (s *Server) Roles(grants []Grant) (use func(), err error) {
	next, err := newRights(s.local, grants)
	if err != nil {
		return nil, err
	}
	return func() {
		s.rights.Store(next)
		s.open.enforce()
	}, nil
}

// authorize returns the actor of a call, and an error, which is a *refusedError,
// if it may not make the call.
func (s *Server) authorize(ctx context.Context, method string, request any) (access.Actor, error) {
	c, known := callerIn(ctx)
	if !known {
		return access.Actor{}, &refusedError{err: access.Authorize(access.Actor{Name: "unknown"}, method, request)}
	}
	who, policy := c.connection.who(), s.rights.Load().policy.Load()
	actor := policy.Actor(who)
	token, shown, err := access.ParseBearer(metadata.ValueFromIncomingContext(ctx, "authorization"))
	if shown && err == nil {
		actor, err = policy.TokenActor(token, who)
	}
	if err == nil {
		err = access.Authorize(actor, method, request)
	}
	if err != nil {
		return actor, &refusedError{err: err, advice: s.advise(err, who, shown)}
	}
	return actor, nil
}

// refusedError refuses a call, with advice.
type refusedError struct {
	err    error
	advice string // optional
}

func (e *refusedError) Unwrap() error { return e.err }

func (e *refusedError) Error() string {
	if e.advice == "" {
		return e.err.Error()
	}
	return e.err.Error() + "; " + e.advice
}

// advise says how a caller gets the role that it lacks.
func (s *Server) advise(err error, who *access.Caller, byToken bool) string {
	var denied *access.DeniedError
	if !errors.As(err, &denied) {
		return ""
	}
	switch {
	case byToken:
		return "give the token that role in grpc.roles"
	case who.Way == access.Loopback && s.socket != "":
		return fmt.Sprintf("call over %s%s, as root or in its group, or set grpc.local_role: %s", unixPrefix, s.socket, denied.Needed)
	case who.Way == access.Loopback:
		return fmt.Sprintf("set grpc.local_role: %s, or send a token of grpc.roles", denied.Needed)
	case who.Way == access.Socket:
		return "call as root, or give a group of the user that role in grpc.roles"
	case who.Way == access.Certificate && len(who.SANs) == 0:
		return "its certificate has no DNS name or URI; make one that has, and give that a role in grpc.roles"
	case who.Way == access.Certificate:
		return fmt.Sprintf("give one of %s that role in grpc.roles", strings.Join(who.SANs, ", "))
	}
	return "send a token of grpc.roles with that role"
}

// openStreams has the streams whose callers may lose the role for them.
type openStreams struct {
	mu     sync.Mutex
	checks map[*served]func() error
}

// add registers a stream, with a function that tells whether its caller may
// have it. It returns the error of that.
func (o *openStreams) add(st *served, check func() error) error {
	o.mu.Lock()
	if o.checks == nil {
		o.checks = map[*served]func() error{}
	}
	o.checks[st] = check
	o.mu.Unlock()
	return check() // the rights may have changed since the first check, before enforce knew of the stream
}

func (o *openStreams) remove(st *served) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.checks, st)
}

// enforce ends the streams whose callers may not have them any more.
func (o *openStreams) enforce() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for st, check := range o.checks {
		if err := check(); err != nil {
			st.cancel(err)
		}
	}
}
