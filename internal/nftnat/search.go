package nftnat

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/sessiond/sessiond/internal/addrrange"
	"github.com/sessiond/sessiond/internal/nftnat/wire"
	"github.com/sessiond/sessiond/internal/nlmsg"
	"golang.org/x/sys/unix"
)

const (
	// dumpLimit is the number of elements of a map that are dumped while the turn is held.
	// That costs some 30 ms, and four times as much for twice as many: the kernel walks a set
	// from its beginning for every 32 KiB of a dump.
	dumpLimit = 20_000

	// dumpInterval is the least time between two dumps without a limit.
	dumpInterval = 10 * time.Minute
)

// search is the state of the search for elements at unnamed addresses: those without a sure
// cell, since nothing has asked for them by key.
type search struct {
	begun  bool
	ranges addrrange.Set // still to be asked about
	dump   bool          // the kernel counts elements that were not found in the ranges: a dump is due
	dumped time.Time     // when the last such dump was
	ended  time.Time     // when the last search was
}

func (s *search) reset() { s.begun, s.ranges, s.dump = false, nil, false }

// searchStep continues the search by up to n addresses; the end of the search makes the
// shadow complete. It returns the number of addresses whose elements differed. The search
// begins with a dump, and ends with it where the maps are small.
func (k *knownElements) searchStep(ctx context.Context, n int) (wrong int, err error) {
	if !k.search.begun {
		return 0, k.beginSearch(ctx)
	}
	var list []address
	list, k.search.ranges = k.shadow.unknownIn(k.search.ranges, n)
	if wrong, err = k.lookAgain(ctx, list); err != nil || len(k.search.ranges) > 0 {
		return wrong, err
	}
	_, size, err := k.readIdentity(ctx)
	if err != nil {
		return wrong, err
	}
	k.search.dump = size.known && !k.shadow.agrees(size.gate, size.blocks) && time.Since(k.search.dumped) >= dumpInterval
	if !k.search.dump {
		k.completed()
	}
	return wrong, nil
}

func (k *knownElements) beginSearch(ctx context.Context) error {
	k.search.begun, k.search.ranges = true, addrrange.Of(k.everInside)
	_, size, err := k.readIdentity(ctx)
	if err != nil || size.known && max(size.gate, size.blocks) > dumpLimit {
		return err
	}
	const attempts = 3 // others may change nftables meanwhile
	for range attempts {
		strangers, whole, err := k.dump(ctx, dumpLimit)
		if err != nil {
			return err
		}
		if whole {
			k.meet(strangers)
			return nil
		}
	}
	return nil
}

// meet completes the shadow by the addresses that a dump found; their elements are looked up
// next.
func (k *knownElements) meet(strangers []address) {
	for _, inside := range strangers {
		k.shadow.suspect(inside)
	}
	k.completed()
}

// dumpDue reports whether the search waits for a dump without a limit.
func (k *Kernel) dumpDue(ctx context.Context) (bool, error) {
	due := false
	err := k.inTurn(ctx, func() error {
		due = k.known.search.dump
		if due {
			k.known.search.dumped = time.Now()
		}
		return nil
	})
	return due, err
}

// searchByDump ends a search by a dump of any size. Programming goes on meanwhile: its changes
// are known, and the dump finds all other elements.
func (k *Kernel) searchByDump(ctx context.Context) error {
	strangers, _, err := k.known.dump(ctx, 0)
	if err != nil {
		return err
	}
	return k.inTurn(ctx, func() error {
		if k.known.search.dump { // otherwise all cells are in doubt again
			k.known.meet(strangers)
		}
		return nil
	})
}

// dump lists the addresses whose elements are not known. It gives up after limit elements of a
// map, unless limit is 0; whole says that it read all of both maps, each as it was at one
// time.
func (k *knownElements) dump(ctx context.Context, limit int) (strangers []address, whole bool, err error) {
	whole = true
	for _, set := range []string{mapGate, mapBlock} {
		found, complete, err := k.dumpMap(ctx, set, limit)
		if err != nil {
			return nil, false, err
		}
		strangers, whole = append(strangers, found...), whole && complete
	}
	return strangers, whole, nil
}

// isEmpty reports whether a map of the table that was last made as wanted has no element.
func (k *knownElements) isEmpty(ctx context.Context, set string) (bool, error) {
	whole, err := k.dumpWhile(ctx, set, func(attrs []byte) bool {
		return len(nlmsg.Attr(attrs, unix.NFTA_SET_ELEM_LIST_ELEMENTS)) == 0
	})
	if err != nil || !whole {
		return false, err
	}
	id, _, err := k.readIdentity(ctx) // a table that is gone has none either
	return id == k.identity && id != (identity{}), err
}

func (k *knownElements) dumpMap(ctx context.Context, set string, limit int) (strangers []address, whole bool, err error) {
	seen := 0
	whole, err = k.dumpWhile(ctx, set, func(attrs []byte) bool {
		for _, e := range nlmsg.Attrs(nlmsg.Attr(attrs, unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
			if key := parseKey(e); len(key) == addressLen && !k.shadow.sure(address(key)) {
				strangers = append(strangers, address(key))
			}
			seen++
		}
		return limit == 0 || seen <= limit
	})
	return strangers, whole, err
}

// dumpWhile yields the answers of a dump of a map until yield returns false, and returns
// whether the dump came whole.
func (k *knownElements) dumpWhile(ctx context.Context, set string, yield func(attrs []byte) bool) (whole bool, err error) {
	conn, err := wire.Dial(k.ns.FD()) // the rest of an abandoned dump stays in it
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	return conn.DumpWhile(ctx, wire.GetElements, func(dst []byte) []byte {
		dst = nlmsg.AppendString(dst, unix.NFTA_SET_ELEM_LIST_TABLE, k.table)
		return nlmsg.AppendString(dst, unix.NFTA_SET_ELEM_LIST_SET, set)
	}, yield)
}

// keepInside notes the inside prefixes, for reading sessions, and adds them to the former
// ones, for the search.
func (k *Kernel) keepInside(prefixes []netip.Prefix) {
	prefixes = slices.Clone(prefixes)
	k.inside.Store(&prefixes)
	k.known.everInside = withAll(k.known.everInside, prefixes)
}

// The verification.

// The verification looks up each element again even without a notice of a change: a kernel or
// a sessiond may have a bug. In a second it looks up as many addresses as a whole round in
// verifyRound needs, but at most verifyMost, which is 1 % of a core: a million take 17
// minutes. Cells in doubt and unnamed addresses are looked up ten times as fast: at a million
// elements after 100 s at most, at a /10 in 7 minutes.
const (
	verifyRound = time.Minute
	verifyMost  = lookChunk
	doubtMost   = 10 * lookChunk

	// searchInterval is the time between two searches through all addresses of the inside
	// prefixes, on a kernel that does not count elements. Maps that are small enough for a
	// dump are dumped after every round.
	searchInterval = time.Hour
)

// verify is one second's part of the verification. It does nothing while a start learns all
// elements, which would have to wait for it.
func (k *Kernel) verify(ctx context.Context) error {
	if k.learning.Swap(false) {
		return nil
	}
	for looked := 0; looked < doubtMost; looked += lookChunk {
		wrong, sound := 0, false
		err := k.inTurn(ctx, func() (err error) {
			if wrong, sound, err = k.known.completeStep(ctx, lookChunk); err == nil && sound {
				wrong, err = k.known.verifyStep(ctx)
			}
			return err
		})
		if wrong > 0 {
			k.known.tell()
		}
		if err != nil || sound {
			return err
		}
	}
	due, err := k.dumpDue(ctx)
	if due && err == nil {
		err = k.searchByDump(ctx)
	}
	return err
}

// verifyStep looks up the next elements of a shadow that should be exact, and compares the
// kernel's counts.
func (k *knownElements) verifyStep(ctx context.Context) (wrong int, err error) {
	share := min(verifyMost, 1+k.shadow.len()/int(verifyRound/watchInterval))
	list, next := k.shadow.nextCells(k.verified, share, true)
	if wrong, err = k.lookAgain(ctx, list); err != nil {
		return wrong, err
	}
	k.verified = next
	if wrong > 0 {
		k.log.Warn("elements of the nftables table are not as they were programmed, and nobody told",
			"table", k.table, "addresses", wrong)
	}
	_, size, err := k.readIdentity(ctx)
	if err != nil {
		return wrong, err
	}
	if !size.known {
		if !next.IsValid() && (k.shadow.len() <= dumpLimit || time.Since(k.search.ended) >= searchInterval) {
			k.shadow.setComplete(false) // nothing else announces strangers
			k.search.reset()
		}
		return wrong, nil
	}
	if k.shadow.agrees(size.gate, size.blocks) {
		k.miscounted = 0
		return wrong, nil
	}
	if k.miscounted++; k.miscounted > 1 { // at first a commit of others may be under way
		k.miscounted = 0
		k.doubt("the kernel counts other numbers of elements")
	}
	return wrong, nil
}
