package conntrack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/sessiond/sessiond/internal/clock"
	"github.com/sessiond/sessiond/internal/cpubarrier"
	"github.com/sessiond/sessiond/internal/netns"
)

// rebuildRetry is the pause after a rebuild that failed.
const rebuildRetry = time.Second

// keepIndex builds the index and keeps rebuilding it. Only a failure of the first build is
// returned: later failures are logged and retried, because the kernel has answered before.
func (t *Table) keepIndex(ctx context.Context) error {
	// A packet in flight may have begun an entry before the subscription, without an event.
	// The dump must not come before that entry is in the table.
	if err := cpubarrier.Wait(ctx); err != nil {
		return err
	}
	if err := t.rebuildIndex(ctx); err != nil {
		return fmt.Errorf("build conntrack index: %w", err)
	}
	close(t.ready)
	told := uint64(0)
	timer := time.NewTimer(t.audit)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.listener.stale:
		case <-timer.C:
		}
		missed := t.index.errors().missed
		if n := t.listener.overruns.Load(); n != told {
			t.log.Warn("conntrack: events were lost, the index is rebuilt", "overruns", n)
			told = n
		}
		began, wait := time.Now(), t.audit
		if err := t.rebuildIndex(ctx); err != nil && ctx.Err() == nil {
			t.log.Error("conntrack: rebuild of the index failed", "error", err)
			wait = rebuildRetry
		}
		if n := t.index.errors().missed - missed; n > 0 {
			t.log.Error("conntrack: entries began without an event; removals are proved by table passes until an audit finds none", "entries", n)
		}
		timer.Reset(wait)
		if err := rest(ctx, time.Since(began)); err != nil {
			return err
		}
	}
}

// rebuildIndex compares the index with a dump and repairs it.
func (t *Table) rebuildIndex(ctx context.Context) error {
	t.learnOwn()
	t.index.beginRebuild()
	t.heedEvents()
	buckets := read(t.sysctls.buckets)
	err := t.pool.with(ctx, func(c *conn) error {
		return c.dump(func(flows []flow) error {
			t.index.listed(flows)
			return nil
		})
	})
	if err == nil {
		err = t.waitEventsApplied(ctx)
	}
	if err != nil {
		t.index.abandonRebuild()
		return err
	}
	if !bytes.Equal(buckets, read(t.sysctls.buckets)) {
		t.listener.garbled() // a dump misses entries while the kernel resizes its table
	}
	if !t.heedEvents() && !t.quiet.Load() {
		t.log.Warn("conntrack: nf_conntrack_events is 0 or cannot be read; sessions are counted by audits alone, and removals proved by table passes")
	}
	t.rebuilds.Add(1)
	return t.pool.with(ctx, func(c *conn) error { return t.index.finishRebuild(c.probe) })
}

// heedEvents makes the index incomplete until the next rebuild while the kernel does not
// send all events, and reports whether it does.
func (t *Table) heedEvents() (told bool) {
	events := read(t.sysctls.events)
	if told = !t.quiet.Load() && len(events) > 0 && string(events) != "0"; !told {
		t.index.lost()
	}
	return told
}

// waitEventsApplied returns once the events of all dumped entries have been applied, or
// lost.
func (t *Table) waitEventsApplied(ctx context.Context) error {
	if err := cpubarrier.Wait(ctx); err != nil {
		return err
	}
	if err := t.listener.catchUp(ctx); err != nil && !errors.Is(err, errBehind) {
		return err
	}
	return nil
}

// The index during a rebuild.

// rebuild is the state of a rebuild from a dump. Dump and events come over two
// sockets in no common order, so three rules keep the index right:
//
//   - an entry whose end was seen during the dump is not taken from the dump
//     again: if it began once more, an event has reported it or will;
//   - an event read during the dump is newer than the dump's entry;
//   - an entry that neither the dump nor an event showed is asked for by tuple:
//     a dump may miss existing entries when the kernel resizes its table.
type rebuild struct {
	running bool
	gen     uint8
	dead    map[identity]struct{}
	untold  map[identity]struct{} // shown by the dump alone; nil unless the index was complete before
	losses  uint64                // of events, before it began
	errors  indexErrors
}

// indexErrors are the errors that rebuilds of a complete index found in it.
type indexErrors struct {
	missed uint64 // entries that it lacked although all events had been read
	stale  uint64 // entries that it had and the kernel had not
}

// died records the end of an entry, from an event or a delete, during a rebuild.
func (r *rebuild) died(i identity) {
	if r.running {
		r.dead[i] = struct{}{}
	}
}

// beginRebuild must be called before the dump is requested.
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

// listed applies entries of the dump.
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

// finishRebuild must be called after the events of the dumped entries were read. It asks
// the kernel by probe for the entries that the rebuild did not see. The index is complete
// then, unless events were lost meanwhile or the dump showed entries that had no event.
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
	x.rebuild.errors.missed += uint64(missed)
	x.complete = x.losses == x.rebuild.losses && missed == 0
	x.idle.poke()
	x.endRebuildLocked()
	return nil
}

// forgetStale removes entries that the kernel does not have, and counts them as drift.
func (x *index) forgetStale(gone []entryRef) {
	x.forget(gone)
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.rebuild.untold != nil {
		x.rebuild.errors.stale += uint64(len(gone))
	}
}

// abandonRebuild ends a rebuild that failed.
func (x *index) abandonRebuild() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.endRebuildLocked()
}

func (x *index) endRebuildLocked() {
	x.rebuild.running = false
	x.rebuild.dead, x.rebuild.untold = nil, nil
}

// unseenAtOnce is the number of records checked under one hold of the lock.
const unseenAtOnce = 4096

// unseen returns the entries in one chunk of the records that the rebuild has not seen, and
// removes those whose addresses are no longer inside. more is false after the last chunk.
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

// setInside applies to entries from now on; the next rebuild applies it to the others.
func (x *index) setInside(inside addrSet) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.inside = inside
	x.lostLocked()
}

func (x *index) errors() indexErrors {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.rebuild.errors
}

// maxRest bounds the pause after work that walked the whole table.
const maxRest = time.Second

// rest waits for d, maxRest at most, or until ctx is done. A rest as long as the work
// before it bounds the work to half a core, however often it is requested.
func rest(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	return clock.Sleep(ctx, min(d, maxRest))
}

// Sysctls.

// sysctls are files below /proc/sys. An open file stays that of the namespace it was opened
// in. They are opened at Run, because the kernel modules behind them may be loaded late.
type sysctls struct {
	events  *os.File // nf_conntrack_events: 0 is off, 1 on, 2 on while a listener exists
	buckets *os.File // nf_conntrack_buckets
}

const sysctlDir = "/proc/sys/net/netfilter/"

func openSysctls(n netns.Namespace) (s sysctls, err error) {
	err = n.Do(func() error {
		var events, buckets error
		s.events, events = os.Open(sysctlDir + "nf_conntrack_events")
		s.buckets, buckets = os.Open(sysctlDir + "nf_conntrack_buckets")
		return errors.Join(events, buckets)
	})
	if err != nil {
		s.close()
		return sysctls{}, fmt.Errorf("open conntrack sysctls: %w", err)
	}
	return s, nil
}

func (s sysctls) close() {
	for _, f := range []*os.File{s.events, s.buckets} {
		if f != nil {
			f.Close()
		}
	}
}

// counted reports whether the kernel counts packets and octets of new entries.
func counted(n netns.Namespace) bool {
	on := false
	_ = n.Do(func() error {
		v, err := os.ReadFile(sysctlDir + "nf_conntrack_acct")
		on = err != nil || !bytes.Equal(bytes.TrimSpace(v), []byte("0")) // a file that cannot be read is not known to be off
		return nil
	})
	return on
}

// read returns a value, empty when there is none.
func read(f *os.File) []byte {
	if f == nil {
		return nil
	}
	var b [32]byte
	n, _ := f.ReadAt(b[:], 0) // io.EOF always
	return bytes.TrimSpace(b[:n])
}
