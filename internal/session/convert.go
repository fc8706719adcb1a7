package session

import (
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nftnat"
)

// sessionView returns a kernel session as gRPC shows it.
func sessionView(group string, s nftnat.Session) inspect.Session {
	return inspect.Session{Group: group, Session: s.Session}
}
