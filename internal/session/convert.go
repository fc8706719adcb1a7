package session

import (
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nftnat"
)

// sessionView is what a NOC sees of a kernel session.
func sessionView(group string, s nftnat.Session) inspect.Session {
	return inspect.Session{
		Group:     group,
		Protocol:  s.Protocol,
		Inside:    s.Inside,
		Outside:   s.Outside,
		Remote:    s.Remote,
		State:     s.State,
		ExpiresIn: s.ExpiresIn,
		Packets:   s.Packets,
		Bytes:     s.Bytes,
		Direction: nat.Direction(s.Direction),
	}
}
