package nftnat

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/netns"
	"github.com/sessiond/sessiond/internal/nftnat/wire"
	"github.com/sessiond/sessiond/internal/nlmsg"
	"golang.org/x/sys/unix"
)

// knownElements are the known elements of the gate and block maps: looked up by key, kept
// current by the notices of others' changes (watch.go), searched for at unnamed addresses and
// verified (search.go). The shadow may be read at any time; the other fields are for the
// holder of the Kernel's turn.
type knownElements struct {
	shadow
	conn   *wire.Conn
	ns     netns.Namespace
	table  string
	log    *slog.Logger
	settle func(context.Context) error // makes the table as wanted

	changed chan struct{} // signalled when others changed the shadow's elements

	identity   identity       // of the table that was last converged
	unsettled  bool           // the table itself is in doubt, and has to be converged
	everInside []netip.Prefix // prefixes that the table has, or had: elements may be there
	search     search

	cursor     netip.Addr // of the walk through unsure cells
	verified   netip.Addr // of the verification
	miscounted int        // times in a row that the kernel's count differed
	countless  bool       // the kernel's counts of elements are not used, for tests
}

// Questions of callers.

// Learn makes sure that EntryAt and EntriesFrom return the kernel's elements of the addresses,
// and puts back a table that others deleted or changed. It costs some 8 us for each address
// that is not known, and next to nothing for the others. Elements that others left behind may
// be incomplete: see EntryAt.
func (k *Kernel) Learn(ctx context.Context, inside []netip.Addr) error {
	k.learning.Store(true)
	var list []address
	for first := true; first || len(inside) > 0; first = false {
		n := min(len(inside), 16*lookChunk)
		err := k.inTurn(ctx, func() error {
			err := errors.Join(k.known.count(ctx), k.known.ensureStatic(ctx))
			list = k.known.unsureOf(list[:0], inside[:n])
			return err
		})
		if err != nil {
			return fmt.Errorf("read nftables table %s: %w", k.options.Table, err)
		}
		for part := range slices.Chunk(list, lookChunk) {
			err := k.inTurn(ctx, func() error {
				_, err := k.known.lookAgain(ctx, part)
				return err
			})
			if err != nil {
				return fmt.Errorf("read nftables table %s: %w", k.options.Table, err)
			}
		}
		inside = inside[n:]
	}
	return nil
}

// LearnRest makes sure that EntriesFrom lists all of the kernel's elements, at any address.
// Where the kernel counts elements and the count agrees, that is one request. Otherwise it
// costs some 8 us for each address of the inside prefixes, present and former; with less than
// 20,000 elements it takes 50 ms. With more elements, a kernel that does not count is not
// asked about addresses outside of these prefixes.
func (k *Kernel) LearnRest(ctx context.Context) error {
	for {
		done := false
		err := k.inTurn(ctx, func() (err error) {
			_, done, err = k.known.completeStep(ctx, lookChunk)
			return errors.Join(err, k.known.ensureStatic(ctx))
		})
		if err != nil {
			return fmt.Errorf("read nftables table %s: %w", k.options.Table, err)
		}
		if done {
			return nil
		}
		if due, err := k.dumpDue(ctx); err != nil {
			return err
		} else if due {
			if err := k.searchByDump(ctx); err != nil {
				return err
			}
		}
	}
}

// inTurn runs do in the turn, after taking in the changes of others.
func (k *Kernel) inTurn(ctx context.Context, do func() error) error {
	if err := k.lock(ctx); err != nil {
		return err
	}
	defer k.unlock()
	if k.removed {
		return nil
	}
	if err := k.hear(ctx); err != nil {
		return err
	}
	return do()
}

// Known reports whether EntriesFrom lists all of the kernel's elements, unless others changed
// them unnoticed.
func (k *Kernel) Known() bool { return k.known.exact() }

// EntryAt returns the known entry of an address: as Learn read it, or a notice of others said.
// It sends no request. An entry that others left behind may be incomplete: a block without a
// gate is GateClosed, and a gate without a block has no Outside. Apply of a closed entry
// deletes both elements.
func (k *Kernel) EntryAt(inside netip.Addr) (nat.Entry, bool) { return k.known.entryAt(inside) }

// EntriesFrom lists up to n known entries, see EntryAt, in order of inside address, beginning
// with from, or with the first if from is the zero address. It costs no more than the entries
// it lists. next is the next address to begin with, the zero address at the end.
func (k *Kernel) EntriesFrom(_ context.Context, from netip.Addr, n int) (entries []nat.Entry, next netip.Addr) {
	return k.known.entriesFrom(from, n)
}

// Elements returns the number of addresses with known elements.
func (k *Kernel) Elements() int { return k.known.len() + k.known.lone() }

// On the way to an exact shadow.

// count makes the shadow complete if the kernel's own count agrees with it.
func (k *knownElements) count(ctx context.Context) error {
	if k.shadow.exact() {
		return nil
	}
	id, n, err := k.readIdentity(ctx)
	if err == nil && n.known && id == k.identity && k.shadow.agrees(n.gate, n.blocks) {
		k.completed()
	}
	return err
}

func (k *knownElements) completed() {
	k.shadow.setComplete(true)
	k.search.reset()
	k.search.ended = time.Now()
}

// completeStep looks up to n addresses on the way to an exact shadow: first unsure ones, then
// unknown ones. It returns the number whose elements differed from the known ones, and whether
// the shadow is exact.
func (k *knownElements) completeStep(ctx context.Context, n int) (wrong int, done bool, err error) {
	if k.shadow.exact() {
		return 0, true, nil
	}
	if k.shadow.doubts() > 0 {
		list, next := k.shadow.nextCells(k.cursor, n, false)
		if wrong, err = k.lookAgain(ctx, list); err == nil {
			k.cursor = next
		}
		return wrong, false, err
	}
	if err := k.count(ctx); err != nil || k.shadow.exact() {
		return 0, err == nil, err
	}
	wrong, err = k.searchStep(ctx, n)
	return wrong, err == nil && k.shadow.exact(), err
}

// Look-ups by key.

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

// lookAgain is look for a table that other programs may be replacing.
func (k *knownElements) lookAgain(ctx context.Context, list []address) (wrong int, err error) {
	const attempts = 3
	for range attempts {
		if wrong, err = k.look(ctx, list); !errors.Is(err, errOtherTable) {
			return wrong, err
		}
		if err := k.settle(ctx); err != nil {
			return 0, err
		}
	}
	return 0, err
}
