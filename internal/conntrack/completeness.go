package conntrack

import "net/netip"

// lost records that events may be missing. The index is incomplete until a rebuild that
// begins afterwards has finished.
func (x *index) lost() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.lostLocked()
}

func (x *index) lostLocked() {
	x.complete = false
	x.losses++
}

// isComplete reports whether the index has every entry of inside addresses that the kernel
// has reported so far, as far as the listener has read. It may have more: entries from
// before the listener end without an event when the sysctl nf_conntrack_events is 2. That
// is safe, because only a count of zero proves something: a delete asks the kernel for each
// of them by tuple, and takes ENOENT for an answer too.
func (x *index) isComplete() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.complete
}

// covers reports whether all addresses lie in the indexed prefixes.
func (x *index) covers(addrs askedAddrs) bool {
	x.mu.Lock()
	inside := x.inside
	x.mu.Unlock()
	for addr := range addrs {
		if !inside.Contains(addr) {
			return false
		}
	}
	return true
}

// lookStep is the number of addresses looked up under one hold of the lock.
const lookStep = 512

// empty returns those of the addresses that have no entry. ok is false when the index is
// incomplete.
func (x *index) empty(addrs askedAddrs) (none []uint32, ok bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	seen := 0
	for addr := range addrs {
		if seen++; seen%lookStep == 0 {
			x.mu.Unlock()
			x.mu.Lock()
		}
		if !x.complete {
			return nil, false
		}
		if x.countLocked(addr) == 0 {
			none = append(none, addr)
		}
	}
	return none, true
}

// plain returns those of the addresses whose entries are all portless.
func (x *index) plain(addrs askedAddrs) (only []uint32) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for addr := range addrs {
		if x.plainLocked(addr) {
			only = append(only, addr)
		}
		x.mu.Unlock() // let others have the lock: one address may have many entries
		x.mu.Lock()
	}
	return only
}

func (x *index) plainLocked(addr uint32) bool {
	own, ok := x.byAddr[addr]
	if !ok {
		return true
	}
	for slot := x.owners.At(own).head; slot != 0; slot = x.records.At(slot).next {
		if x.records.At(slot).kind&recordPlain == 0 {
			return false
		}
	}
	return true
}

// left returns the number of entries of each address.
func (x *index) left(addrs askedAddrs) map[netip.Addr]int {
	counts := make(map[netip.Addr]int, len(addrs))
	for addr := range addrs {
		counts[toAddr(addr)] = x.count(addr)
	}
	return counts
}
