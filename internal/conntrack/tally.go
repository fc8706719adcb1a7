package conntrack

import "net/netip"

// tally counts entries by the addresses asked for.
type tally struct {
	asked   asked
	deleted map[uint32]int
}

func newTally(addrs []netip.Addr) (tally, error) {
	set, err := newAsked(addrs)
	return tally{set, make(map[uint32]int, len(set))}, err
}

func (t tally) add(targets []target) {
	for i := range targets {
		for _, addr := range targets[i].owners.list() {
			if t.asked.contains(addr) {
				t.deleted[addr]++
			}
		}
	}
}

// count counts without adding.
func (t tally) count(targets []target) map[netip.Addr]int {
	other := tally{t.asked, make(map[uint32]int)}
	other.add(targets)
	left := make(map[netip.Addr]int)
	for addr, n := range other.deleted {
		left[toAddr(addr)] = n
	}
	return left
}

// result has every address asked for, with 0 where nothing was deleted.
func (t tally) result() map[netip.Addr]int {
	result := make(map[netip.Addr]int, len(t.asked))
	for addr := range t.asked {
		result[toAddr(addr)] = t.deleted[addr]
	}
	return result
}
