package conntrack

import (
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
)

// Outcome is what a delete came to for one address.
type Outcome struct {
	Deleted int       // entries deleted; one of two addresses counts for both
	Proof   nat.Proof // NotProved when entries were left
	At      time.Time // when none was left; zero when entries were
}

// deletion is a delete under way.
type deletion struct {
	tally   deleteCounts
	pending asked // of the addresses, those without a proof
	proved  map[uint32]Outcome
	refused error // what the kernel refused last, if it did
}

func newEnding(addrs []netip.Addr) (*deletion, error) {
	tally, err := newTally(addrs)
	if err != nil {
		return nil, err
	}
	pending, err := newAsked(addrs)
	return &deletion{tally: tally, pending: pending, proved: make(map[uint32]Outcome)}, err
}

// prove records a proof for pending addresses.
func (e *deletion) prove(addrs []uint32, by nat.Proof) {
	now := time.Now()
	for _, addr := range addrs {
		e.proved[addr] = Outcome{Proof: by, At: now}
		delete(e.pending, addr)
	}
}

func (e *deletion) result() map[netip.Addr]Outcome {
	result := make(map[netip.Addr]Outcome, len(e.tally.asked))
	for addr := range e.tally.asked {
		o := e.proved[addr]
		o.Deleted = e.tally.deleted[addr]
		result[toAddr(addr)] = o
	}
	return result
}
