package addrtable

import (
	"iter"
	"math/bits"
	"net/netip"
	"slices"

	"github.com/sessiond/sessiond/internal/addrrange"
)

// An Index lists IPv4 addresses, in order, under many keys. Its zero value is
// empty. An address takes 8 to 16 octets, mostly 12 (BenchmarkIndex), also if
// it is alone under its key. A key is mostly a hash, so a key may also list
// addresses of another value with the same hash.
//
// An Index is not safe for concurrent use.
type Index struct {
	firsts  []uint64   // the first entry of each run
	runs    [][]uint64 // entries of key and address, in order; no run is empty
	len     int
	changes int
}

// runSize is the largest number of entries in a run. A change moves half of
// them, 1 KiB; a split moves the list of all runs, 250 KB for a million
// entries.
const runSize = 256

// Len returns the number of listed addresses, under all keys.
func (x *Index) Len() int { return x.len }

// Add lists an address under a key. It panics if the address is not IPv4.
func (x *Index) Add(key uint32, a netip.Addr) {
	if !a.Is4() {
		panic("addrtable: " + a.String() + " is not an IPv4 address")
	}
	entry := entryOf(key, a)
	if len(x.runs) == 0 {
		x.insertRun(0, nil)
	}
	r, i, there := x.find(entry)
	if there {
		return
	}
	x.changes++
	x.len++
	if len(x.runs[r]) == runSize {
		r, i = x.split(r, i)
	}
	x.runs[r] = slices.Insert(x.runs[r], i, entry)
	x.firsts[r] = x.runs[r][0]
}

// Remove removes an address from the list under a key, if it is there.
func (x *Index) Remove(key uint32, a netip.Addr) {
	if !a.Is4() || len(x.runs) == 0 {
		return
	}
	r, i, there := x.find(entryOf(key, a))
	if !there {
		return
	}
	x.changes++
	x.len--
	x.runs[r] = slices.Delete(x.runs[r], i, i+1)
	switch n := len(x.runs[r]); {
	case n == 0:
		x.removeRun(r)
		return
	case n < runSize/4:
		// A neighbour takes the run, or the run it, if both together leave space.
		for _, left := range []int{r - 1, r} {
			if left >= 0 && left+1 < len(x.runs) && len(x.runs[left])+len(x.runs[left+1]) <= runSize*3/4 {
				x.runs[left] = append(x.runs[left], x.runs[left+1]...)
				x.removeRun(left + 1)
				r = left
				break
			}
		}
	}
	x.firsts[r] = x.runs[r][0]
}

// From yields the addresses under a key, in order, from first on, inclusive;
// the zero address is before all. The index may change during the iteration: an
// address that stays listed is yielded once, one that is added or removed once
// or not at all.
func (x *Index) From(key uint32, first netip.Addr) iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		if first.Is6() || len(x.runs) == 0 {
			return // behind every IPv4 address
		}
		next := uint64(key) << 32
		if first.Is4() {
			next = entryOf(key, first)
		}
		r, i, _ := x.find(next)
		for changes := x.changes; ; i++ {
			if x.changes != changes {
				if changes = x.changes; len(x.runs) == 0 {
					return
				}
				r, i, _ = x.find(next)
			}
			if i == len(x.runs[r]) {
				if r, i = r+1, 0; r == len(x.runs) {
					return
				}
			}
			entry := x.runs[r][i]
			if uint32(entry>>32) != key || !yield(addrrange.Address(uint32(entry))) || uint32(entry) == 1<<32-1 {
				return
			}
			next = entry + 1
		}
	}
}

// find returns the position of an entry, present or not: the run, and the index
// in it.
func (x *Index) find(entry uint64) (run, i int, there bool) {
	run = search(x.firsts, entry, 0, 1<<64-1)
	if run == len(x.firsts) || x.firsts[run] > entry {
		run = max(run-1, 0)
	}
	end := uint64(1<<64 - 1)
	if run+1 < len(x.firsts) {
		end = x.firsts[run+1]
	}
	entries := x.runs[run]
	i = search(entries, entry, x.firsts[run], end)
	return run, i, i < len(entries) && entries[i] == entry
}

// search returns the index of the first entry that is not smaller. It begins at
// the place of the entry if all were spread evenly between two bounds, as
// hashes are: a binary search over a run outside the processor's cache would
// touch five cache lines.
func search(entries []uint64, entry, low, end uint64) int {
	n := len(entries)
	at := n - 1
	if entry <= low {
		at = 0
	} else if entry < end {
		high, share := bits.Mul64(entry-low, uint64(n))
		place, _ := bits.Div64(high, share, end-low)
		at = int(place)
	}
	if n == 0 {
		return 0
	}
	lower, upper, step := 0, n, 4
	if entries[at] < entry {
		for lower = at + 1; lower+step < n; step *= 4 {
			if entries[lower+step] >= entry {
				upper = lower + step
				break
			}
			lower += step + 1
		}
	} else {
		for upper = at; upper-step >= 0; step *= 4 {
			if entries[upper-step] < entry {
				lower = upper - step + 1
				break
			}
			upper -= step
		}
	}
	i, _ := slices.BinarySearch(entries[lower:upper], entry)
	return lower + i
}

// split makes two runs of a full one, and returns the new position of its i-th
// entry. A split at the end moves no entry, so that adding in order leaves full
// runs.
func (x *Index) split(r, i int) (run, at int) {
	if i == runSize {
		x.insertRun(r+1, nil)
		return r + 1, 0
	}
	x.insertRun(r+1, x.runs[r][runSize/2:])
	x.runs[r] = x.runs[r][:runSize/2]
	if i > runSize/2 {
		return r + 1, i - runSize/2
	}
	return r, i
}

func (x *Index) insertRun(r int, entries []uint64) {
	first := uint64(0)
	if len(entries) > 0 {
		first = entries[0]
	}
	x.runs = slices.Insert(x.runs, r, append(make([]uint64, 0, runSize), entries...))
	x.firsts = slices.Insert(x.firsts, r, first)
}

func (x *Index) removeRun(r int) {
	x.runs = slices.Delete(x.runs, r, r+1)
	x.firsts = slices.Delete(x.firsts, r, r+1)
}

func entryOf(key uint32, a netip.Addr) uint64 {
	return uint64(key)<<32 | uint64(addrrange.Number(a))
}
