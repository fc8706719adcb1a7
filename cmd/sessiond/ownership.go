package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sessiond/sessiond/internal/config"
	"github.com/sessiond/sessiond/internal/nftnat"
	"github.com/sessiond/sessiond/internal/ownership"
)

// backendMemory is the value of nat.backend without a kernel.
const backendMemory = "memory"

// leaveWithin bounds the time in which a failed start gives up its groups.
const leaveWithin = 500 * time.Millisecond

// lockTable ensures, before the kernel is touched, that no other daemon
// programs the table. Then it raises the barrier, because the next steps may
// have to wait.
func (s *service) lockTable(ctx context.Context) error {
	if s.config.NAT.Backend == backendMemory {
		return nil
	}
	table, err := ownership.LockTable(ctx, s.config.NAT.NetNS, s.config.NAT.Table)
	if err != nil {
		return fmt.Errorf("nat: %w", err)
	}
	s.closers = append(s.closers, table)
	if err := nftnat.RaiseBarrier(natOptions(s.config, s.log)); err != nil {
		s.log.Info("the barrier cannot be put up yet", "error", err)
	}
	return nil
}

// claimGroups ensures that no other daemon serves the groups. Without Redis,
// the life cycle does so as soon as Redis is there.
func (s *service) claimGroups(ctx context.Context) error {
	namespace := ""
	if s.config.NAT.Backend != backendMemory {
		namespace = s.config.NAT.NetNS
	}
	claim, err := ownership.New(ownership.Options{Store: s.db, Node: s.config.Node, Namespace: namespace, Logger: s.log})
	if err != nil {
		return err
	}
	s.claim = claim
	s.closers = append(s.closers, claim)
	for _, g := range s.config.Groups {
		switch err := claim.Take(ctx, g.Name); {
		case errors.Is(err, ownership.ErrOwned), ctx.Err() != nil:
			return err
		case err != nil:
			s.log.Info("whose the groups are cannot be asked yet", "error", err)
			return nil
		}
	}
	return nil
}

// leave gives up the groups, so that another node, or the next start, need not
// wait.
func (s *service) leave(ctx context.Context) {
	if s.claim == nil {
		return
	}
	if err := s.claim.LeaveAll(ctx); err != nil {
		s.log.Info("the leases of the groups could not be given up, they run out", "within", ownership.Lease, "error", err)
	}
}

// servedBy identifies this daemon among all that use the same Redis. It depends
// on the configuration only, so a restart does not change it.
func servedBy(c config.Config) string {
	if c.NAT.Backend == backendMemory {
		return c.Node + " memory"
	}
	return fmt.Sprintf("%s %s:%s", c.Node, c.NAT.NetNS, c.NAT.Table)
}
