package conntrack

import (
	"context"
	"time"

	"golang.org/x/sys/unix"
)

// settlePause stands in where the kernel grants nothing better.
const settlePause = 20 * time.Millisecond

// membarrierGlobal is MEMBARRIER_CMD_GLOBAL of membarrier(2).
const membarrierGlobal = 1

// Settle returns when every packet that was under way when it was called has
// come through: the entry that it began stands in the table, and its event in
// the queue. The kernel handles a packet from its receipt to the end of
// postrouting in one go, with soft interrupts off and within one RCU read-side
// section. So it is through once a thread of ours has run on each processor,
// which takes some 0.1 ms, or a grace period is over, for which membarrier(2)
// waits some 10 ms. Where both are refused (nohz_full, a seccomp filter), a pause
// has to do.
func Settle(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if tour() {
		return nil
	}
	if _, _, code := unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0); code == 0 {
		return nil
	}
	return rest(ctx, settlePause)
}
