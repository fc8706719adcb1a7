package nat

import (
	"net/netip"
	"time"
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

// Receipt is the record of a teardown. A zero time means a step not done yet.
type Receipt struct {
	CutAt      time.Time // the gate had closed and no map element was left
	ReapedAt   time.Time // it was proved that no conntrack entry is left
	ReleasedAt time.Time // the block went into its hold
	Elements   int       // map elements removed
	Deleted    int       // conntrack entries deleted
	Proof      Proof
}

// Reaped is the proof that a cut inside address has no conntrack entries left.
type Reaped struct {
	Inside  netip.Addr
	Deleted int // conntrack entries deleted
	Proof   Proof
	At      time.Time // when the check found none left
}
