package conntrack

import (
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
)

// Outcome is the result of a delete for one address.
type Outcome struct {
	Deleted int       // entries deleted; one with two of the addresses counts for both
	Proof   nat.Proof // NotProved when entries were left
	At      time.Time // when the proof found none left; zero without a proof
}

// deletion is the state of one Delete.
type deletion struct {
	tally   deleteCounts
	pending askedAddrs // of the addresses, those without a proof
	proved  map[uint32]Outcome
	refused error // the kernel's last refusal, or nil
}

func newDeletion(addrs []netip.Addr) (*deletion, error) {
	tally, err := newDeleteCounts(addrs)
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
