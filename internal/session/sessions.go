package session

import (
	"context"
	"net/netip"

	"github.com/sessiond/sessiond/internal/audit"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nftnat"
)

// Sessions calls yield with every matching conntrack entry.
func (v *Backend) Sessions(ctx context.Context, f inspect.SessionFilter, yield func(inspect.Session) error) error {
	return v.eachSession(ctx, f, func(_ nftnat.Session, v inspect.Session) error { return yield(v) })
}

// CountSessions counts the matching conntrack entries.
func (v *Backend) CountSessions(ctx context.Context, f inspect.SessionFilter) (int, error) {
	n := 0
	err := v.eachSession(ctx, f, func(nftnat.Session, inspect.Session) error { n++; return nil })
	return n, err
}

// TerminateSessions deletes the matching conntrack entries.
func (v *Backend) TerminateSessions(ctx context.Context, f inspect.SessionFilter) (int, error) {
	var doomed []nftnat.Session
	err := v.eachSession(ctx, f, func(s nftnat.Session, _ inspect.Session) error {
		doomed = append(doomed, s)
		return nil
	})
	if err != nil {
		return 0, err
	}
	if len(doomed) == 0 {
		return 0, nil
	}
	order := func(e *audit.Entry) {
		e.Group, e.Count, e.Keys = f.Group, len(doomed), []string{f.String()}
	}
	return v.ordered(ctx, order, func() (int, error) {
		for i, s := range doomed {
			if err := v.kernel.KillSession(ctx, s); err != nil {
				return i, err
			}
		}
		return len(doomed), nil
	})
}

func (v *Backend) eachSession(ctx context.Context, f inspect.SessionFilter, yield func(nftnat.Session, inspect.Session) error) error {
	match := func(s nftnat.Session) error {
		v := inspect.Session{Group: v.shared.groupName(s.Inside.Addr()), Session: s.Session}
		if !f.Match(&v) {
			return nil
		}
		return yield(s, v)
	}
	if f.Inside.IsValid() {
		return v.kernel.SessionsOf(ctx, f.Inside, match)
	}
	return v.kernel.Sessions(ctx, match)
}

func (s *sharedState) groupName(inside netip.Addr) string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if g := s.groupOfRLocked(inside); g != nil {
		return g.Name
	}
	return ""
}
