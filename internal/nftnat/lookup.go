package nftnat

import (
	"context"
	"errors"

	"github.com/sessiond/sessiond/internal/nftnat/wire"
	"github.com/sessiond/sessiond/internal/nlmsg"
	"golang.org/x/sys/unix"
)

// identity holds the kernel's handles of the table and its maps. A table that is deleted and
// made anew under the same name has another identity.
type identity struct{ table, gate, block uint64 }

// sizes are the numbers of elements in the maps.
type sizes struct {
	known        bool // the kernel counts elements
	gate, blocks int
}

// readIdentity reads the identity and the sizes of the maps. The identity of a missing table,
// or of one that lacks a map, is zero.
func (k *knownElements) readIdentity(ctx context.Context) (identity, sizes, error) {
	var id identity
	err := k.conn.Get(ctx, wire.GetTable, func(dst []byte) []byte {
		return nlmsg.AppendString(dst, unix.NFTA_TABLE_NAME, k.table)
	}, func(attrs []byte) { id.table = nlmsg.Uint64(nlmsg.Attr(attrs, wire.AttrTableHandle)) })
	n := sizes{known: !k.countless}
	for _, m := range []struct {
		name   string
		handle *uint64
		size   *int
	}{{mapGate, &id.gate, &n.gate}, {mapBlock, &id.block, &n.blocks}} {
		err = errors.Join(err, k.conn.Get(ctx, wire.GetSet, func(dst []byte) []byte {
			return appendSetName(dst, k.table, m.name)
		}, func(attrs []byte) {
			*m.handle = nlmsg.Uint64(nlmsg.Attr(attrs, wire.AttrSetHandle))
			count := nlmsg.Attr(attrs, wire.AttrSetCount)
			n.known = n.known && count != nil
			*m.size = int(nlmsg.Uint32(count))
		}))
	}
	switch {
	case errors.Is(err, unix.ENOENT):
		return identity{}, sizes{}, nil
	case err != nil:
		return identity{}, sizes{}, err
	}
	return id, n, nil
}

// errOtherTable: the table is not the one that was converged.
var errOtherTable = errors.New("nftnat: the table was made anew by others")

// look reads the elements of some addresses and records them. It returns the number that
// differed from the known ones. If it fails nothing is recorded: in a deleted table keys are
// missing too, and no subscriber must be cut off for that.
func (k *knownElements) look(ctx context.Context, list []address) (wrong int, err error) {
	cells := make([]cell, len(list))
	key := func(dst []byte, i int) []byte { return appendKey(dst, list[i][:]) }
	err = errors.Join(
		k.conn.Lookup(ctx, k.table, mapGate, len(list), key, func(i int, attrs []byte) {
			if _, g, ok := parseGate(attrs); ok {
				cells[i].gate = g
			}
		}),
		k.conn.Lookup(ctx, k.table, mapBlock, len(list), key, func(i int, attrs []byte) {
			if _, b, ok := parseBlock(attrs); ok {
				cells[i].block = b
			}
		}),
	)
	if err != nil {
		return 0, err
	}
	id, _, err := k.readIdentity(ctx)
	if err != nil {
		return 0, err
	}
	if id != k.identity || id == (identity{}) {
		return 0, errOtherTable
	}
	for i, inside := range list {
		if k.shadow.at(inside) != cells[i] {
			wrong++
		}
	}
	k.shadow.record(list, cells)
	return wrong, nil
}
