package scale

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of processor time in /proc, USER_HZ on every architecture.
const tick = 10 * time.Millisecond

// cpuTime returns the CPU time of a process in user and kernel mode (proc(5), stat): 0 if
// it has ended.
func cpuTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), ") ") // the name may contain anything
	fields := strings.Fields(rest)
	const user, kernel = 11, 12 // counted after the name
	if len(fields) <= kernel {
		return 0, fmt.Errorf("stat of %d: %q", pid, text)
	}
	var sum time.Duration
	for _, field := range fields[user : kernel+1] {
		n, err := strconv.Atoi(field)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(n) * tick
	}
	return sum, nil
}

// memory reads one size of a process, in octets: "VmRSS" is the resident memory, "VmHWM"
// its peak since the start or resetPeak.
func memory(pid int, what string) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, what+":"); ok {
			kib, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
			return float64(kib) * 1024, err
		}
	}
	return 0, fmt.Errorf("status of %d has no %s", pid, what)
}

// resetPeak sets VmHWM to the present resident memory (proc(5), clear_refs). It does
// nothing for a process that has ended.
func resetPeak(pid int) error {
	err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
