package nat

import (
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// Proof is the way in which the absence of conntrack entries of an inside
// address was proved.
type Proof uint8

// The proofs; the zero value is none.
const (
	NotProved  Proof = iota
	ProofIndex       // the index of conntrack entries, complete at that time, had none
	ProofTable       // a walk through the whole conntrack table met none
)

var proofNames = [...]string{ProofIndex: "index", ProofTable: "table"}

// String returns the proof's name, "" for none.
func (p Proof) String() string {
	if int(p) < len(proofNames) {
		return proofNames[p]
	}
	return ""
}

// ParseProof is the reverse of String; an unknown name gives NotProved.
func ParseProof(name string) Proof {
	for p, known := range proofNames {
		if known == name {
			return Proof(p)
		}
	}
	return NotProved
}

// Receipt is the result of a teardown, for all blocks of a binding. It says that from CutAt
// on no packet passed the gate, and that at ReapedAt the kernel had no conntrack entry that
// could use a port of the blocks. Entries between the inside address and the machine itself
// use none, and may be left. A zero time means a step not done yet.
type Receipt struct {
	CutAt      time.Time // the gate had closed and no map element was left; where a flowtable may carry packets past it, ReapedAt
	ReapedAt   time.Time // it was proved that no conntrack entry is left
	ReleasedAt time.Time // the blocks went into their hold; Binding.ReleasedAt is another time
	Elements   int       // map elements removed, with those of learned mappings
	Deleted    int       // conntrack entries deleted
	Proof      Proof

	// End tells why the record ended, or the binding was cut; the zero one is not known any
	// more.
	subscriber.End
}

// Reaped is the proof that a cut inside address has no conntrack entries left, and no learned
// mappings.
type Reaped struct {
	Inside   netip.Addr
	Deleted  int // conntrack entries deleted
	Elements int // elements of learned mappings deleted
	Proof    Proof
	At       time.Time // when the check found none left
}
