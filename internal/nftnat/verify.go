package nftnat

import (
	"context"
	"time"
)

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
