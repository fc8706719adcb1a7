package control

import (
	"context"
	"slices"
	"time"

	"github.com/sessiond/sessiond/internal/keyfiles"
)

// The kinds of files that are read again when they change.
const (
	certificateFiles = "certificate" // with its key
	caFiles          = "client_ca"
	tokenFiles       = "tokens"
)

// watchFiles puts files of certificates and tokens in force when they change.
func (s *Server) watchFiles(ctx context.Context) {
	tick := time.NewTicker(keyfiles.Interval)
	defer tick.Stop()
	refused := map[string]bool{} // by kind, as the observer knows it
	tell := func(kind string, sets []*keyfiles.Set) {
		if now := slices.ContainsFunc(sets, (*keyfiles.Set).Refused); now != refused[kind] {
			refused[kind] = now
			s.observer.FilesUsable(kind, !now)
		}
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		tokens := s.rights.Load().tokens
		if keyfiles.LookAll(tokens, s.logger) {
			s.open.enforce()
		}
		tell(tokenFiles, tokens)
		if s.tls != nil {
			changed := keyfiles.LookAll(s.tls.sets(), s.logger)
			for _, d := range s.doors {
				d.expel(s.tls, changed)
			}
			tell(certificateFiles, s.tls.certificate)
			tell(caFiles, s.tls.cas)
		}
	}
}
