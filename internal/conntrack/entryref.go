package conntrack

// entryRef names an entry that is about to be deleted or asked for.
type entryRef struct {
	key    key
	id     uint32
	serial uint16 // of the index's record at that time; 0 if it was not known
	known  bool   // the entry was in the index
	owners insideAddrs
	plain  bool // see portless
}

// collect appends the known entries of addr, up to most of them.
func (x *index) collect(to []entryRef, addr uint32, most int) []entryRef {
	x.mu.Lock()
	defer x.mu.Unlock()
	own, ok := x.byAddr[addr]
	if !ok {
		return to
	}
	for slot := x.owners.At(own).head; slot != 0 && most > 0; most-- {
		to = append(to, x.targetLocked(slot))
		slot = x.records.At(slot).next
	}
	return to
}

// targetLocked returns the reference of a record's entry, with all its owners: a hairpin
// entry counts for both.
func (x *index) targetLocked(slot uint32) entryRef {
	r := x.records.At(slot)
	t := entryRef{key: r.key, id: r.id, serial: r.serial, known: true, plain: r.kind&recordPlain != 0}
	if r.is(recordTwin) {
		slot = x.lookup.find(r.key, &x.records)
	}
	for ; slot != 0; slot = x.records.At(slot).twin {
		t.owners.addrs[t.owners.n] = x.owners.At(x.records.At(slot).owner).addr
		t.owners.n++
	}
	return t
}

// target returns the reference of an entry that a dump has shown.
func (x *index) target(f *flow, o insideAddrs) entryRef {
	x.mu.Lock()
	defer x.mu.Unlock()
	t := entryRef{key: f.orig, id: f.id, owners: o, plain: x.portless(f)}
	if slot := x.lookup.find(f.orig, &x.records); slot != 0 {
		r := x.records.At(slot)
		t.known = r.id == f.id
		t.serial = r.serial
	}
	return t
}

// learn adds entries that a pass has shown and no event has reported, so that they can be
// asked for by tuple. If one has ended meanwhile, that request finds it gone.
func (x *index) learn(found []entryRef) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for i := range found {
		t := &found[i]
		if x.lookup.find(t.key, &x.records) == 0 && t.owners.anyIn(x.inside) {
			f := flow{orig: t.key, id: t.id}
			if t.plain {
				f.reply.src, f.reply.dst = t.key.dst, t.key.src
			}
			x.insertLocked(&f, t.owners)
			// A rebuild under way has not seen it, nor its other inside addresses.
			x.records.At(x.lookup.find(t.key, &x.records)).gen--
		}
	}
}

// forget removes entries that the kernel no longer has, without waiting for their events:
// entries that began before the listener have none. A later entry on the same tuple stays.
func (x *index) forget(gone []entryRef) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for i := range gone {
		x.forgetLocked(&gone[i])
	}
}

func (x *index) forgetLocked(t *entryRef) {
	slot := x.lookup.find(t.key, &x.records)
	switch {
	case slot == 0:
		x.rebuild.died(identity{t.key, t.id})
	case t.known && x.records.At(slot).serial == t.serial:
		x.rebuild.died(identity{t.key, t.id})
		x.removeLocked(slot)
	}
}
