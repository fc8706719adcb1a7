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
func (d *daemon) lockTable(ctx context.Context) error {
	if d.config.NAT.Backend == backendMemory {
		return nil
	}
	table, err := ownership.LockTable(ctx, d.config.NAT.NetNS, d.config.NAT.Table)
	if err != nil {
		return fmt.Errorf("nat: %w", err)
	}
	d.closers = append(d.closers, table)
	if err := nftnat.RaiseBarrier(natOptions(d.config, d.log)); err != nil {
		d.log.Info("the barrier cannot be put up yet", "error", err)
	}
	return nil
}

// claimGroups ensures that no other daemon serves the groups. Without Redis,
// the life cycle does so as soon as Redis is there.
func (d *daemon) claimGroups(ctx context.Context) error {
	namespace := ""
	if d.config.NAT.Backend != backendMemory {
		namespace = d.config.NAT.NetNS
	}
	claim, err := ownership.New(ownership.Options{Store: d.db, Node: d.config.Node, Namespace: namespace, Logger: d.log})
	if err != nil {
		return err
	}
	d.claim = claim
	d.closers = append(d.closers, claim)
	for _, g := range d.config.Groups {
		switch err := claim.Claim(ctx, g.Name); {
		case errors.Is(err, ownership.ErrOwned), ctx.Err() != nil:
			return err
		case err != nil:
			d.log.Info("the owners of the groups cannot be read yet", "error", err)
			return nil
		}
	}
	return nil
}

// leave gives up the groups, so that another node, or the next start, need not
// wait.
func (d *daemon) leave(ctx context.Context) {
	if d.claim == nil {
		return
	}
	if err := d.claim.LeaveAll(ctx); err != nil {
		d.log.Info("the leases of the groups could not be given up, they run out", "within", ownership.Lease, "error", err)
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
