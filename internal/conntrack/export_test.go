package conntrack

import (
	"context"
	"net/netip"

	"golang.org/x/sys/unix"
)

// ParsePayload parses one message's payload for tests.
func ParsePayload(payload []byte) (Entry, bool, error) {
	var f flow
	ok, err := f.parse(payload)
	return f.entry(), ok, err
}

// WithEventBuffer sets the size of the event socket's receive buffer.
func WithEventBuffer(o Options, size int) Options {
	o.eventBuffer = size
	return o
}

// Rebuild makes Run rebuild the index.
func (t *Table) Rebuild() { t.listener.askRebuild() }

// Walk makes one table pass for an address.
func (t *Table) Walk(ctx context.Context, addr netip.Addr) error {
	v, _ := fromAddr(addr)
	_, err := t.walk(ctx, askedAddrs{v: {}})
	return err
}

// Flush deletes the entries of the addresses that the index knows, and proves nothing.
func (t *Table) Flush(ctx context.Context, inside []netip.Addr) (deleted map[netip.Addr]int, err error) {
	e, err := newDeletion(inside)
	if err != nil {
		return nil, err
	}
	err = t.flush(ctx, e)
	deleted = make(map[netip.Addr]int)
	for addr, o := range e.result() {
		deleted[addr] = o.Deleted
	}
	return deleted, err
}

// Prove proves by table passes alone.
func (t *Table) Prove(ctx context.Context, addrs []netip.Addr) (map[netip.Addr]Outcome, error) {
	e, err := newDeletion(addrs)
	if err != nil {
		return nil, err
	}
	err = t.proveByTable(ctx, e)
	return e.result(), err
}

// Mark sends a marker without waiting for it.
func (t *Table) Mark() error { return t.listener.receiver.mark(1) }

// Join subscribes to events without running the table.
func (t *Table) Join() error { return t.listener.receiver.join() }

// Drain applies the waiting events and returns their number.
func (t *Table) Drain() (int, error) {
	total := 0
	batch := make([]event, 0, eventsPerRead)
	for {
		n, err := t.listener.receiver.receive(false)
		if n == 0 || err != nil {
			return total, err
		}
		batch = batch[:0]
		for i := range n {
			batch = t.listener.parse(batch, t.listener.receiver.datagrams.At(i))
		}
		t.listener.apply(batch)
		total += len(batch)
	}
}

// ParseDatagram parses a datagram as events, as a dump and as answers.
func ParseDatagram(b []byte) {
	_, _, _ = parseDump(nil, b, 1)
	_, _ = answers(b, 1, make([]unix.Errno, 2), func(int, *flow) {})
	l := &listener{index: newIndex(askedAddrs{}), stale: make(chan struct{}, 1)}
	l.parse(nil, b)
}
