package nat

import (
	"net/netip"
	"time"
)

// Proof says how it was found that no conntrack entry of an inside address is left.
type Proof uint8

// The proofs; the zero one is none.
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

// ParseProof is the reverse of String; a name that is not known is no proof.
func ParseProof(name string) Proof {
	for p, known := range proofNames {
		if known == name {
			return Proof(p)
		}
	}
	return NotProved
}

// Receipt tells a teardown. The zero times are of steps not done yet.
type Receipt struct {
	CutAt      time.Time // the gate had closed and no map element was left
	ReapedAt   time.Time // it was proved that no conntrack entry is left
	ReleasedAt time.Time // the block went into its hold
	Elements   int       // map elements removed
	Deleted    int       // conntrack entries deleted
	Proof      Proof
}

// Reaped is the proof that nothing of a cut inside address is left.
type Reaped struct {
	Inside  netip.Addr
	Deleted int // conntrack entries deleted
	Proof   Proof
	At      time.Time // when the check found none left
}
