package conntrack

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// tourMost is the most processors that a tour visits. The more there are, the more likely
// one of them delays it.
const tourMost = 16

// tour runs a thread on each online processor in turn, and reports whether it reached all.
// The scheduler does not place a thread on a processor within a soft interrupt, except on a
// PREEMPT_RT kernel, where tour returns false. Processors may be out of reach (cpuset).
func tour() bool {
	if preemptsSoftInterrupts() {
		return false
	}
	text, err := os.ReadFile("/sys/devices/system/cpu/online")
	if err != nil {
		return false
	}
	cpus, ok := parseCPUs(string(text))
	if !ok || len(cpus) > tourMost {
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

// visit moves its thread to each processor. A thread whose affinity or scheduling policy
// cannot be restored ends with the goroutine.
func visit(cpus []int) bool {
	runtime.LockOSThread()
	var own unix.CPUSet
	rank, err := unix.SchedGetAttr(0, 0)
	if err != nil || unix.SchedGetaffinity(0, &own) != nil {
		runtime.UnlockOSThread()
		return false
	}
	// On a busy processor the thread would wait some 3 ms for its turn. It does so where
	// the kernel refuses the policy (CAP_SYS_NICE).
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

// runOn moves the thread. Unlike unix.SchedSetaffinity it does not release Go's scheduler
// slot while it waits.
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
