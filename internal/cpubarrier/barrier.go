// Package cpubarrier waits until every processor has left the kernel code that
// it was in when the wait began.
package cpubarrier

import (
	"context"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"

	"github.com/sessiond/sessiond/internal/clock"
	"golang.org/x/sys/unix"
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

// mostCPUs is the largest number of processors that are visited. The more there
// are, the likelier one of them delays the thread.
const mostCPUs = 16

// runOnEveryCPU runs a thread on each online processor in turn. Soft interrupts
// are not preempted, so afterwards every packet that was being processed at the
// call is finished. It returns false where that does not hold or was not done:
// on PREEMPT_RT, with more than mostCPUs processors, or with some outside of
// our cpuset.
func runOnEveryCPU() bool {
	if preemptsSoftInterrupts() {
		return false
	}
	text, err := os.ReadFile("/sys/devices/system/cpu/online")
	if err != nil {
		return false
	}
	cpus, ok := parseCPUs(string(text))
	if !ok || len(cpus) > mostCPUs {
		return false
	}
	done := make(chan bool)
	go func() { done <- visit(cpus) }()
	return <-done
}

var preemptsSoftInterrupts = sync.OnceValue(func() bool {
	rt, err := os.ReadFile("/sys/kernel/realtime")
	return err == nil && strings.TrimSpace(string(rt)) != "0"
})

// visit moves its thread to each processor. If the affinity or scheduling
// policy of the thread cannot be restored, the thread ends with the goroutine.
func visit(cpus []int) bool {
	runtime.LockOSThread()
	var own unix.CPUSet
	rank, err := unix.SchedGetAttr(0, 0)
	if err != nil || unix.SchedGetaffinity(0, &own) != nil {
		runtime.UnlockOSThread()
		return false
	}
	// On a busy processor the thread would wait some 3 ms to be scheduled. It does
	// wait if the kernel refuses the policy (CAP_SYS_NICE).
	raised := unix.SchedSetAttr(0, &unix.SchedAttr{Policy: unix.SCHED_FIFO, Priority: 1}, 0) == nil
	all := true
	for _, cpu := range cpus {
		var one unix.CPUSet
		one.Set(cpu)
		all = all && one.IsSet(cpu) && runOn(&one)
	}
	restored := runOn(&own)
	if raised {
		restored = unix.SchedSetAttr(0, rank, 0) == nil && restored
	}
	if restored {
		runtime.UnlockOSThread()
	}
	return all
}

// runOn moves the thread. Unlike unix.SchedSetaffinity it does not release Go's
// scheduler slot while it waits.
func runOn(cpus *unix.CPUSet) bool {
	_, _, errno := unix.Syscall(unix.SYS_SCHED_SETAFFINITY, 0, unsafe.Sizeof(*cpus), uintptr(unsafe.Pointer(cpus)))
	return errno == 0
}

// parseCPUs reads a list such as "0-3,8".
func parseCPUs(text string) (cpus []int, ok bool) {
	for part := range strings.SplitSeq(strings.TrimSpace(text), ",") {
		from, to, ranged := strings.Cut(part, "-")
		if !ranged {
			to = from
		}
		first, err1 := strconv.Atoi(from)
		last, err2 := strconv.Atoi(to)
		if err1 != nil || err2 != nil || first < 0 || last < first || last-first > 1<<16 {
			return nil, false
		}
		for cpu := first; cpu <= last; cpu++ {
			cpus = append(cpus, cpu)
		}
	}
	return cpus, true
}
