package nftnat

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/sessiond/sessiond/internal/conntrack"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nftnat/barrier"
	"github.com/sessiond/sessiond/internal/nftnat/wire"
	"github.com/sessiond/sessiond/internal/nlmsg"
	"golang.org/x/sys/unix"
)

// Each rule of the table that drops refers to a counter, an object of the table with a name of
// its own. So a counter outlives a change of the rules, and a restart of the daemon. A packet
// of an established flow meets none.

// A counter is a named counter of the table.
type counter struct {
	name    string
	comment string
	tally   // at which it begins
}

// tally is the value of a counter.
type tally struct{ packets, bytes uint64 }

func (t tally) plus(u tally) tally { return tally{t.packets + u.packets, t.bytes + u.bytes} }

// counterPrefix begins the names of the counters.
const counterPrefix = "drop_"

func counterName(d nat.Drop) string {
	return counterPrefix + string(d.Reason) + "_" + string(d.Direction)
}

// inTable reports whether rules of the table count a drop; others happen behind them.
func inTable(d nat.Drop) bool { return d.CountsBytes() }

// newCounters returns the counters of the table, each with its last known value.
func newCounters(last map[nat.Drop]tally) []counter {
	var counters []counter
	for _, d := range nat.Drops() {
		if inTable(d) {
			counters = append(counters, counter{counterName(d), d.Meaning(), last[d]})
		}
	}
	return counters
}

// countedDrop drops a packet, and counts it for the operator.
func countedDrop(reason nat.DropReason, direction nat.DropDirection) []expr.Any {
	return []expr.Any{countDrop(reason, direction), &expr.Verdict{Kind: expr.VerdictDrop}}
}

// countDrop counts a packet that does not pass.
func countDrop(reason nat.DropReason, direction nat.DropDirection) expr.Any {
	return &expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: counterName(nat.Drop{Reason: reason, Direction: direction})}
}

// planCounters creates the missing counters, before rules that refer to them.
func (r *ruleset) planCounters(s *actualRuleset, b *wire.Batch) {
	for _, c := range r.counters {
		if _, ok := s.counters[c.name]; !ok {
			r.addCounter(c, b)
		}
	}
}

// dropCounters deletes counters of ours to which no rule refers any more.
func (r *ruleset) dropCounters(s *actualRuleset, b *wire.Batch) {
	for _, name := range slices.Sorted(maps.Keys(s.counters)) {
		wanted := slices.ContainsFunc(r.counters, func(c counter) bool { return c.name == name })
		if wanted || !strings.HasPrefix(name, counterPrefix) {
			continue
		}
		b.Add(wire.DelObject, wire.Op{Verb: "delete counter", Object: name}, func(dst []byte) []byte {
			return appendObjectName(dst, r.table, name, unix.NFT_OBJECT_COUNTER)
		})
	}
}

const attrObjectUserdata = 8 // NFTA_OBJ_USERDATA, since Linux 5.10

func (r *ruleset) addCounter(c counter, b *wire.Batch) {
	b.Add(wire.NewObject, wire.Op{Verb: "add counter", Object: c.name}, func(dst []byte) []byte {
		dst = appendObjectName(dst, r.table, c.name, unix.NFT_OBJECT_COUNTER)
		data := len(dst)
		dst = nlmsg.BeginNested(dst, unix.NFTA_OBJ_DATA)
		dst = nlmsg.AppendAttr(dst, unix.NFTA_COUNTER_BYTES, binary.BigEndian.AppendUint64(nil, c.bytes))
		dst = nlmsg.AppendAttr(dst, unix.NFTA_COUNTER_PACKETS, binary.BigEndian.AppendUint64(nil, c.packets))
		dst = nlmsg.EndNested(dst, data)
		return nlmsg.AppendAttr(dst, attrObjectUserdata, userdata.AppendString(nil, userdata.TypeComment, c.comment))
	})
}

// parseTally reads the value of a counter object.
func parseTally(attrs []byte) (t tally) {
	data := nlmsg.Attr(attrs, unix.NFTA_OBJ_DATA)
	for attr, into := range map[uint16]*uint64{unix.NFTA_COUNTER_PACKETS: &t.packets, unix.NFTA_COUNTER_BYTES: &t.bytes} {
		if v := nlmsg.Attr(data, attr); len(v) == 8 {
			*into = binary.BigEndian.Uint64(v)
		}
	}
	return t
}

// dropCounts are the drops of the table, and of what stands behind it, since the counters
// began. Its methods may be called concurrently.
type dropCounts struct {
	conn    *wire.Conn
	table   string
	losses  *conntrack.Table
	barrier *barrier.Barrier

	mu   sync.Mutex
	last map[nat.Drop]tally // in the kernel
	lost map[nat.Drop]tally // that others took out of counters, by a reset

	barriers map[string]uint64 // packets by interface, as last read
}

// Drops returns the count of every drop of nat.Drops, in its order. The counts outlive a
// restart. A table that others delete, and Run makes anew, goes on counting from the counts of
// at most a second before; one that went while no daemon ran begins at 0. On error the counts
// are those last read.
func (d *dropCounts) Drops(ctx context.Context) ([]nat.DropCount, error) {
	err := d.read(ctx)
	return d.list(), err
}

func (d *dropCounts) list() []nat.DropCount {
	d.mu.Lock()
	defer d.mu.Unlock()
	var counts []nat.DropCount
	for _, drop := range nat.Drops() {
		t := d.last[drop].plus(d.lost[drop])
		counts = append(counts, nat.DropCount{Drop: drop, Packets: t.packets, Bytes: t.bytes})
	}
	return counts
}

// counters returns the counters as a new table gets them.
func (d *dropCounts) counters() []counter {
	d.mu.Lock()
	defer d.mu.Unlock()
	return newCounters(d.last)
}

func (d *dropCounts) read(ctx context.Context) error {
	counters := make(map[string]tally)
	err := list(ctx, d.conn, wire.GetObject, d.table, unix.NFTA_OBJ_TABLE, func() { clear(counters) }, func(attrs []byte) {
		if nlmsg.Uint32(nlmsg.Attr(attrs, unix.NFTA_OBJ_TYPE)) == unix.NFT_OBJECT_COUNTER {
			counters[nlmsg.String(nlmsg.Attr(attrs, unix.NFTA_OBJ_NAME))] = parseTally(attrs)
		}
	})
	if err != nil {
		return fmt.Errorf("read the counters of nftables table %s: %w", d.table, err)
	}
	losses, err := d.losses.Losses(ctx)
	if err != nil {
		return err
	}
	held, err := d.barrier.Dropped()
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.noteLocked(counters)
	d.risenLocked(nat.Drop{Reason: nat.DropBlockFull, Direction: nat.DropOut}, losses.Refused)
	d.risenLocked(nat.Drop{Reason: nat.DropConntrackFull, Direction: nat.DropAny}, losses.Full)
	d.noteBarriersLocked(held)
	return nil
}

// note takes over the values of the table's counters.
func (d *dropCounts) note(counters map[string]tally) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.noteLocked(counters)
}

// noteLocked takes over the values of counters. A missing counter keeps its value, for the
// table that is about to be made anew. A value below the last one was reset by others.
func (d *dropCounts) noteLocked(counters map[string]tally) {
	for _, drop := range nat.Drops() {
		now, ok := counters[counterName(drop)]
		if !ok {
			continue
		}
		if last := d.last[drop]; now.packets < last.packets {
			d.lost[drop] = d.lost[drop].plus(last)
		}
		d.last[drop] = now
	}
}

// risenLocked takes over a count that never falls, but for reading processor by processor.
func (d *dropCounts) risenLocked(drop nat.Drop, packets uint64) {
	d.last[drop] = tally{packets: max(packets, d.last[drop].packets)}
}

// noteBarriersLocked adds the packets of each barrier since it was read last, and all of a
// barrier that begins to count anew. The kernel counts in 32 bits.
func (d *dropCounts) noteBarriersLocked(held map[string]uint32) {
	drop := nat.Drop{Reason: nat.DropBarrier, Direction: nat.DropOut}
	for name, now := range held {
		was, known := d.barriers[name]
		more := uint64(now)
		if known && uint64(now) >= was {
			more -= was
		}
		d.barriers[name] = uint64(now)
		d.last[drop] = d.last[drop].plus(tally{packets: more})
	}
}
