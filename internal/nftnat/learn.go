package nftnat

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
)

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
			err := k.known.count(ctx)
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
			return err
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
func (k *Kernel) Elements() int { return k.known.len() }
