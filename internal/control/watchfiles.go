package control

import (
	"context"
	"time"

	"github.com/sessiond/sessiond/internal/keyfiles"
)

// watchFiles puts files of certificates and tokens in force when they change.
func (s *Server) watchFiles(ctx context.Context) {
	tick := time.NewTicker(keyfiles.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if keyfiles.LookAll(s.rights.Load().tokens, s.logger) {
			s.open.enforce()
		}
		if s.tls != nil {
			changed := keyfiles.LookAll(s.tls.sets, s.logger)
			for _, d := range s.doors {
				d.expel(s.tls, changed)
			}
		}
	}
}
