package conntrack

import (
	"context"
	"time"

	"golang.org/x/sys/unix"
)

// settlePause replaces the barriers where the kernel grants neither.
const settlePause = 20 * time.Millisecond

// membarrierGlobal is MEMBARRIER_CMD_GLOBAL of membarrier(2).
const membarrierGlobal = 1

// Settle returns once every packet that was in flight at the call is through: its entry is
// in the table, and the event in the queue. The kernel handles a packet from its receipt to
// the end of postrouting with soft interrupts off and within one RCU read-side section. So
// all are through once a thread of ours has run on each processor, which takes some 0.1 ms.
// Or once an RCU grace period is over, for which membarrier(2) waits some 10 ms. Where the
// kernel refuses both (nohz_full, a seccomp filter), Settle pauses for settlePause.
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
