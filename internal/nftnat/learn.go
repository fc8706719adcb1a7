package nftnat

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
)

// Learn makes sure that EntryAt and EntriesFrom say of each of the addresses what stands
// in the kernel, and puts back a table that others deleted or changed. It costs some
// 8 us for each address of which that is not known, and next to nothing for the others.
// Elements that others left behind may be incomplete: see Entry.
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

// LearnRest makes sure that EntriesFrom lists whatever stands in the kernel, at whatever
// addresses. Where the kernel counts elements and there are no others than are known,
// that is one request. Otherwise it costs some 8 us for each address of the inside
// prefixes, those included that stand in the kernel's table; with less than 20,000
// elements it takes 50 ms. A kernel that does not count is not asked about addresses
// outside of these prefixes, when there are more elements than that.
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

// inTurn runs do, after what others changed was heard.
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

// count makes the shadow complete if it is by the kernel's own count.
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

// completeStep looks at up to n addresses on the way to an exact shadow: at those that
// are not sure, then for others. It returns how many held something else than was
// known, and whether the shadow is exact.
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

// Known reports whether EntriesFrom lists whatever stands in the kernel, as far as nobody
// changed it since.
func (k *Kernel) Known() bool { return k.known.exact() }

// EntryAt returns what stands at an address, as far as Learn learned it, or others told.
// It asks nobody. An entry that others left behind may be incomplete: a block without a
// gate is Closed, and a gate without a block has no Outside. Apply of a Closed entry
// takes away what there is.
func (k *Kernel) EntryAt(inside netip.Addr) (nat.Entry, bool) { return k.known.entryAt(inside) }

// EntriesFrom lists up to n entries, as EntryAt says them, in order of inside address,
// from an address on, which the zero address is before. It costs no more than what it
// lists. next is where to go on, the zero address at the end.
func (k *Kernel) EntriesFrom(_ context.Context, from netip.Addr, n int) (entries []nat.Entry, next netip.Addr) {
	return k.known.entriesFrom(from, n)
}

// Elements is how many addresses are known to hold something.
func (k *Kernel) Elements() int { return k.known.len() }
