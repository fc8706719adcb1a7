package conntracktest

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// tableLimit bounds the entries of each network namespace of the machine.
const tableLimit = "/proc/sys/net/netfilter/nf_conntrack_max"

// Room lets every namespace have at least n entries until the test ends.
func Room(t testing.TB, n int) {
	t.Helper()
	before, err := os.ReadFile(tableLimit)
	if err != nil {
		t.Fatal(err)
	}
	limit, err := strconv.Atoi(strings.TrimSpace(string(before)))
	if err != nil {
		t.Fatal(err)
	}
	if limit == 0 || limit >= n { // 0: no limit
		return
	}
	set := func(value string) {
		if err := os.WriteFile(tableLimit, []byte(value), 0o644); err != nil {
			t.Errorf("make room for conntrack entries: %v", err)
		}
	}
	set(strconv.Itoa(n))
	t.Cleanup(func() { set(strings.TrimSpace(string(before))) })
}
