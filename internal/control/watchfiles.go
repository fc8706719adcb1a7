package control

import (
	"context"
	"time"

	"github.com/sessiond/sessiond/internal/keyfiles"
)

// fileInterval is the time between two looks at files of certificates and
// tokens. A change takes two.
const fileInterval = 500 * time.Millisecond

// watchFiles puts files of certificates and tokens in force when they change.
func (s *Server) watchFiles(ctx context.Context) {
	tick := time.NewTicker(fileInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if s.changed(s.rights.Load().tokens) {
			s.open.enforce()
		}
		if s.tls != nil {
			changed := s.changed(s.tls.sets)
			for _, d := range s.doors {
				d.expel(s.tls, changed)
			}
		}
	}
}

// changed looks at files, and reports whether other contents are in force.
func (s *Server) changed(sets []*keyfiles.Set) bool {
	found := false
	for _, set := range sets {
		changed, err := set.Look()
		switch {
		case err != nil:
			s.logger.Error("changed files cannot be used, and what they held before stays in force", "files", set.String(), "error", err)
		case changed:
			s.logger.Info("changed files are in force", "files", set.String())
		}
		found = found || changed
	}
	return found
}
