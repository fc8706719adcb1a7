package control

import (
	"context"
	"slices"
	"time"

	"github.com/sessiond/sessiond/internal/keyfiles"
)

// fileInterval is the time between two looks at files of certificates and
// tokens. A change takes two.
const fileInterval = 500 * time.Millisecond

// The kinds of files that are read again when they change.
const (
	certificateFiles = "certificate" // with its key
	caFiles          = "client_ca"
	tokenFiles       = "tokens"
)

// watchFiles puts files of certificates and tokens in force when they change.
func (s *Server) watchFiles(ctx context.Context) {
	tick := time.NewTicker(fileInterval)
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
		if s.changed(tokens) {
			s.open.enforce()
		}
		tell(tokenFiles, tokens)
		if s.tls != nil {
			changed := s.changed(s.tls.sets())
			for _, d := range s.doors {
				d.expel(s.tls, changed)
			}
			tell(certificateFiles, s.tls.certificate)
			tell(caFiles, s.tls.cas)
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
			s.logger.Error("changed files cannot be used, and what they held before stays in force", "files", set.String(), "error", err,
				"alarm", "sessiond_key_files_last_reload_successful")
		case changed:
			s.logger.Info("changed files are in force", "files", set.String())
		}
		found = found || changed
	}
	return found
}
