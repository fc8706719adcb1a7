// Package cpubarrier waits until every processor has left the kernel code that
// it was in when the wait began.
package cpubarrier

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/clock"
)

// pause is the wait if the kernel allows neither method.
const pause = 20 * time.Millisecond

// membarrierGlobal is MEMBARRIER_CMD_GLOBAL of membarrier(2).
const membarrierGlobal = 1

// Wait returns when the kernel has finished every packet that was in flight at
// the call: its changes are made, and its events are queued. The kernel handles
// a packet from its receipt to the end of postrouting without a break, with
// soft interrupts off and within one RCU read-side section. So it is finished
// once a thread of this process has run on each processor, which takes some 0.1
// ms, or after an RCU grace period, for which membarrier(2) waits some 10 ms
// (BenchmarkWait). If both are refused (nohz_full, a seccomp filter), Wait
// pauses instead.
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
