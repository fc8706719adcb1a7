package nftnat

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/sessiond/sessiond/internal/nat"
)

// TestExpiringElementsAreWhole: a dump of a set lacks none of the elements that stay, while others
// expire all the time.
func TestExpiringElementsAreWhole(t *testing.T) {
	lab := newLab(t)
	o := labOptions(lab)
	o.Limits = limitsOf(nat.Limits{NewSessionsPerSecond: 100})
	k := openKernel(t, o)
	set := setRefused(nat.LimitNewSessions)
	const stay, expire = 20_000, 20_000
	staying := func(key []byte) bool { return len(key) == addressLen && key[1] == 65 }
	var list strings.Builder
	for i := range stay {
		fmt.Fprintf(&list, "%v timeout 1h,", netip.AddrFrom4([4]byte{100, 65, byte(i >> 8), byte(i)}))
	}
	for i := range expire {
		fmt.Fprintf(&list, "%v timeout %dms,", netip.AddrFrom4([4]byte{100, 66, byte(i >> 8), byte(i)}), 200+i*1000/expire)
	}
	loadFile(t, lab, fmt.Sprintf("add element ip %s %s { %s }\n", testTable, set, list.String()))
	rounds, lacking := 0, 0 // in a single dump
	for left := 1; left > 0; rounds++ {
		found := 0
		if err := elements(testContext(t), k.conn, testTable, set, func() { found = 0 }, func(attrs []byte) {
			if staying(parseKey(attrs)) {
				found++
			}
		}); err != nil {
			t.Fatal(err)
		}
		lacking = max(lacking, stay-found)
		found, left = 0, 0
		if err := expiringElements(testContext(t), k.conn, testTable, set, func(attrs []byte) bool {
			if !staying(parseKey(attrs)) {
				left++
				return false
			}
			found++
			return true
		}); err != nil {
			t.Fatal(err)
		}
		if found != stay {
			t.Errorf("%d elements that stay were found, of %d, while %d others were left", found, stay, left)
		}
	}
	t.Logf("%d rounds; a single dump lacked up to %d elements that stay", rounds, lacking)
}
