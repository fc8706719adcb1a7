package session

import (
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nftnat"
)

// sessionView is what a NOC sees of a kernel session.
func sessionView(group string, s nftnat.Session) inspect.Session {
	return inspect.Session{Group: group, Session: s.Session}
}
