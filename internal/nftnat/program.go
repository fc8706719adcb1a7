package nftnat

import (
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nftnat/wire"
)

// program adds changes of the gate and block maps to b. Removals come first; an element is
// replaced by its removal and its addition, which the kernel makes visible at one instant.
func program(b *wire.Batch, table string, changes []change) {
	gates := filter(changes, func(c change) bool { return c.from.gate != c.to.gate })
	blocks := filter(changes, func(c change) bool { return c.from.block != c.to.block })

	remove := func(set string, list []change) {
		b.Elements(wire.DelElements, wire.Op{Verb: "delete element", Object: set}, table, set, len(list),
			func(dst []byte, i int) []byte { return appendKey(dst, list[i].inside[:]) })
	}
	remove(mapGate, filter(gates, func(c change) bool { return c.from.gate != nat.GateClosed }))
	remove(mapBlock, filter(blocks, func(c change) bool { return c.from.block != block{} }))

	added := filter(blocks, func(c change) bool { return c.to.block != block{} })
	b.Elements(wire.NewElements, wire.Op{Verb: "add element", Object: mapBlock}, table, mapBlock, len(added),
		func(dst []byte, i int) []byte { return appendBlock(dst, added[i].inside, added[i].to.block) })
	opened := filter(gates, func(c change) bool { return c.to.gate != nat.GateClosed })
	b.Elements(wire.NewElements, wire.Op{Verb: "add element", Object: mapGate}, table, mapGate, len(opened),
		func(dst []byte, i int) []byte { return appendGate(dst, opened[i].inside, opened[i].to.gate) })
}

// filter returns the changes to keep: the list itself if it keeps all, the usual case.
func filter(changes []change, keep func(change) bool) []change {
	n := 0
	for _, c := range changes {
		if keep(c) {
			n++
		}
	}
	switch n {
	case 0:
		return nil
	case len(changes):
		return changes
	}
	kept := make([]change, 0, n)
	for _, c := range changes {
		if keep(c) {
			kept = append(kept, c)
		}
	}
	return kept
}

// wireBytes is the largest size of a change in a batch.
func (c change) wireBytes() int {
	if c.to == (cell{}) {
		return 2 * removalBytes
	}
	return wholeBytes
}

// removalBytes is the size of one element's removal, wholeBytes that of the replacement of
// both elements of an address.
const (
	removalBytes = 20
	wholeBytes   = 2*removalBytes + 52 + 44
)

// batchFrame is room for the headers of a batch and of each of its messages.
const batchFrame = 16 << 10

// split cuts a list of changes into batches that fit the limit. All changes of
// one address are one change, so each address changes at one instant.
func split(changes []change, limit int) [][]change {
	var parts [][]change
	start, size := 0, batchFrame
	for i, c := range changes {
		if size += c.wireBytes(); size > limit && i > start {
			parts = append(parts, changes[start:i])
			start, size = i, batchFrame+c.wireBytes()
		}
	}
	if start < len(changes) {
		parts = append(parts, changes[start:])
	}
	return parts
}
