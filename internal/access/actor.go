package access

import "context"

// Actor is the caller of one call.
type Actor struct {
	// Name tells who calls: "san:spiffe://isp/noc" by a certificate, "user:0" by
	// the kernel, "token:NAME" by a token, "local" a user of this machine whom the
	// kernel does not tell, "anonymous" anybody who can reach the listener.
	Name   string
	Role   Role
	Source string // the peer's address, or "unix"
}

type actorKey struct{}

// With returns a context of a call of the actor.
func With(ctx context.Context, a Actor) context.Context {
	return context.WithValue(ctx, actorKey{}, a)
}

// From returns the actor of the call, if the context is that of a call.
func From(ctx context.Context) (Actor, bool) {
	a, ok := ctx.Value(actorKey{}).(Actor)
	return a, ok
}
