package conntrack

import "net/netip"

// deleteCounts counts deleted entries by address, for the addresses of one request.
type deleteCounts struct {
	asked   askedAddrs
	deleted map[uint32]int
}

func newDeleteCounts(addrs []netip.Addr) (deleteCounts, error) {
	set, err := newAsked(addrs)
	return deleteCounts{set, make(map[uint32]int, len(set))}, err
}

func (t deleteCounts) add(targets []entryRef) {
	for i := range targets {
		for _, addr := range targets[i].owners.list() {
			if t.asked.Contains(addr) {
				t.deleted[addr]++
			}
		}
	}
}

// count returns the entries in targets by address, and adds nothing to t.
func (t deleteCounts) count(targets []entryRef) map[netip.Addr]int {
	other := deleteCounts{t.asked, make(map[uint32]int)}
	other.add(targets)
	left := make(map[netip.Addr]int)
	for addr, n := range other.deleted {
		left[toAddr(addr)] = n
	}
	return left
}

// result returns a count for every requested address, 0 where nothing was deleted.
func (t deleteCounts) result() map[netip.Addr]int {
	result := make(map[netip.Addr]int, len(t.asked))
	for addr := range t.asked {
		result[toAddr(addr)] = t.deleted[addr]
	}
	return result
}
