package conntrack

import (
	"fmt"
	"net/netip"
)

// RemainingError reports entries that were still there after the last try to delete them,
// because new ones kept coming.
type RemainingError struct {
	Left map[netip.Addr]int // entries by inside address
	Err  error              // the kernel's last refusal, or nil
}

func (e *RemainingError) Error() string {
	entries := 0
	example := netip.Addr{}
	for addr, n := range e.Left {
		entries += n
		if !example.IsValid() || addr.Less(example) {
			example = addr
		}
	}
	text := fmt.Sprintf("%d conntrack entries of %d addresses are left, %d of them of %v",
		entries, len(e.Left), e.Left[example], example)
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Unwrap returns the kernel's error.
func (e *RemainingError) Unwrap() error { return e.Err }
