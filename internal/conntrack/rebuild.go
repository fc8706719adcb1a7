package conntrack

// rebuild is the state of a rebuild from a dump. Dump and events come over two
// sockets in no common order, so three rules keep the index right:
//
//   - an entry whose end was seen while the dump ran is not taken from the dump
//     again: if it began once more, an event has told or will;
//   - what an event said while the dump ran is newer than what the dump says;
//   - an entry that neither the dump nor an event showed is gone.
type rebuild struct {
	running bool
	gen     uint8
	dead    map[identity]struct{}
	losses  uint64 // of events, before it began
	mended  uint64 // entries added or removed although no event said so
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
	x.rebuild.losses = x.idle.losses
	x.rebuild.dead = make(map[identity]struct{})
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
		r := x.records.at(slot)
		if r.gen == x.rebuild.gen {
			return
		}
		if r.id == f.id && x.targetLocked(r).owners == o {
			r.gen = x.rebuild.gen
			return
		}
		x.removeLocked(slot)
	}
	x.rebuild.mended++
	x.insertLocked(f, o)
}

// finishRebuild removes what the rebuild did not see, some at a time so that
// events are not kept waiting, and lets idle notifications go.
func (x *index) finishRebuild() {
	for chunk := 0; x.sweep(chunk); chunk++ {
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.endRebuildLocked()
	x.releaseIdleLocked(x.rebuild.losses)
}

// abandonRebuild is for a dump that failed half-way.
func (x *index) abandonRebuild() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.endRebuildLocked()
}

func (x *index) endRebuildLocked() {
	x.rebuild.running = false
	x.rebuild.dead = nil
}

// sweep goes through one chunk of the slab; it is false after the last.
func (x *index) sweep(chunk int) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if chunk >= len(x.records.chunks) {
		return false
	}
	for i := range x.records.chunks[chunk] {
		r := &x.records.chunks[chunk][i]
		if r.kind == recordFirst && r.gen != x.rebuild.gen {
			x.removeLocked(uint32(chunk<<chunkBits | i))
			x.rebuild.mended++
		}
	}
	return true
}

// setInside takes effect on what comes next; a rebuild applies it to the rest.
func (x *index) setInside(inside addrSet) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.inside = inside
}

func (x *index) mended() uint64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.rebuild.mended
}
