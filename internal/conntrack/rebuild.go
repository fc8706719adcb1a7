package conntrack

// rebuild is the state of a rebuild from a dump. Dump and events come over two
// sockets in no common order, so three rules keep the index right:
//
//   - an entry whose end was seen while the dump ran is not taken from the dump
//     again: if it began once more, an event has told or will;
//   - what an event said while the dump ran is newer than what the dump says;
//   - an entry that neither the dump nor an event showed is asked for by tuple:
//     a dump may miss entries that stand, when the kernel's table is resized.
type rebuild struct {
	running bool
	gen     uint8
	dead    map[identity]struct{}
	untold  map[identity]struct{} // shown by the dump alone; nil unless the index was complete before
	losses  uint64                // of events, before it began
	drift   drift
}

// drift is what rebuilds of a complete index found to be wrong with it.
type drift struct {
	missed uint64 // entries that it lacked although all events had been read
	stale  uint64 // entries that it had and the kernel had not
}

// died takes what events and deletes tell while a rebuild runs.
func (r *rebuild) died(i identity) {
	if r.running {
		r.dead[i] = struct{}{}
	}
}

// beginRebuild must come before the dump is asked for.
func (x *index) beginRebuild() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.rebuild.running = true
	x.rebuild.gen++
	x.rebuild.losses = x.losses
	x.rebuild.dead = make(map[identity]struct{})
	if x.complete {
		x.rebuild.untold = make(map[identity]struct{})
	}
}

// listed takes entries of the dump.
func (x *index) listed(flows []flow) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for i := range flows {
		x.listedLocked(&flows[i])
	}
}

func (x *index) listedLocked(f *flow) {
	o := f.owners(x.inside)
	if _, dead := x.rebuild.dead[identity{f.orig, f.id}]; dead || o.n == 0 {
		return
	}
	slot := x.lookup.find(f.orig, &x.records)
	if slot != 0 {
		r := x.records.At(slot)
		if r.gen == x.rebuild.gen {
			return
		}
		if r.id == f.id && x.targetLocked(slot).owners == o {
			r.gen = x.rebuild.gen
			return
		}
		x.removeLocked(slot)
	}
	if x.rebuild.untold != nil {
		x.rebuild.untold[identity{f.orig, f.id}] = struct{}{}
	}
	x.insertLocked(f, o)
}

// finishRebuild comes after the events of what the dump showed were read. It asks
// the kernel, by way of probe, for what the rebuild did not see, and makes the
// index complete unless events were lost meanwhile, or had been lost before
// without a word.
func (x *index) finishRebuild(probe func([]entryRef) (gone []entryRef, err error)) error {
	for chunk := 0; ; chunk++ {
		unseen, more := x.unseen(chunk)
		if !more {
			break
		}
		gone, err := probe(unseen)
		x.forgetStale(gone)
		if err != nil {
			x.abandonRebuild()
			return err
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	missed := len(x.rebuild.untold)
	x.rebuild.drift.missed += uint64(missed)
	x.complete = x.losses == x.rebuild.losses && missed == 0
	x.idle.poke()
	x.endRebuildLocked()
	return nil
}

// forgetStale forgets what the kernel turned out not to have.
func (x *index) forgetStale(gone []entryRef) {
	x.forget(gone)
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.rebuild.untold != nil {
		x.rebuild.drift.stale += uint64(len(gone))
	}
}

// abandonRebuild is for one that failed half-way.
func (x *index) abandonRebuild() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.endRebuildLocked()
}

func (x *index) endRebuildLocked() {
	x.rebuild.running = false
	x.rebuild.dead, x.rebuild.untold = nil, nil
}

// unseenAtOnce is how many records are looked at without giving the index up.
const unseenAtOnce = 4096

// unseen returns the entries of one chunk of the records that the rebuild has not
// seen, and drops those of addresses that are no longer inside. It is false
// after the last chunk.
func (x *index) unseen(chunk int) (unseen []entryRef, more bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	first := 1 + chunk*unseenAtOnce
	if first > x.records.Len() {
		return nil, false
	}
	for i := first; i < first+unseenAtOnce && i <= x.records.Len(); i++ {
		slot := uint32(i)
		r := x.records.At(slot)
		if !r.is(recordFirst) || r.gen == x.rebuild.gen {
			continue
		}
		t := x.targetLocked(slot)
		if !t.owners.anyIn(x.inside) {
			x.removeLocked(slot)
			continue
		}
		unseen = append(unseen, t)
	}
	return unseen, true
}

// setInside takes effect on what comes next; a rebuild applies it to the rest.
func (x *index) setInside(inside addrSet) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.inside = inside
	x.lostLocked()
}

func (x *index) drift() drift {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.rebuild.drift
}
