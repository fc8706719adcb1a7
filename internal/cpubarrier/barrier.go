// Package cpubarrier waits until every processor is past whatever it did in the kernel
// when the wait began.
package cpubarrier

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/clock"
)

// pause stands in where the kernel grants nothing better.
const pause = 20 * time.Millisecond

// membarrierGlobal is MEMBARRIER_CMD_GLOBAL of membarrier(2).
const membarrierGlobal = 1

// Wait returns when every packet that was under way when it was called has come through:
// what it changed in the kernel is there, and what is told of that is queued. The kernel
// handles a packet from its receipt to the end of postrouting in one go, with soft
// interrupts off and within one RCU read-side section. So it is through once a thread of
// ours has run on each processor, which takes some 0.1 ms, or a grace period is over, for
// which membarrier(2) waits some 10 ms (BenchmarkWait). Where both are refused (nohz_full,
// a seccomp filter), a pause has to do.
func Wait(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if runOnEveryCPU() {
		return nil
	}
	if _, _, code := unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0); code == 0 {
		return nil
	}
	return clock.Sleep(ctx, pause)
}
