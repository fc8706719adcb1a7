package nat

import (
	"fmt"
	"net/netip"
	"time"
)

// Holder identifies the subscriber and session of a binding.
type Holder struct {
	Inside        netip.Addr
	Identity      string // by which a subscriber gets its own held block back; "" never matches
	UserName      string // raw octets
	AcctSessionID string // raw octets
}

// Binding is the lease of blocks to one holder.
type Binding struct {
	Group string
	Blocks
	Holder
	State       State
	AllocatedAt time.Time
	FirstAt     time.Time // when its session got its first block, if that one was taken away; zero if this is the first
	GrownAt     time.Time // when it got the newest of its further blocks; zero with one block
	ReleasedAt  time.Time // when the record ended, so before the cut; zero while Active
	HoldUntil   time.Time // set when Held
	GraceUntil  time.Time // Draining: end of the time in which the subscriber may have it back; zero for none
	Receipt     *Receipt  // of its teardown so far, from Cut on; immutable, replaced by a new one
}

// Since returns when the binding's session got its first block.
func (b *Binding) Since() time.Time {
	if b.FirstAt.IsZero() {
		return b.AllocatedAt
	}
	return b.FirstAt
}

// State is the stage of a binding's life.
type State uint8

// A binding goes Active -> Cut -> Held, or Active -> Draining -> Cut -> Held; a
// Draining one may become Active again. After Held it is deleted.
const (
	Active State = iota + 1
	Draining
	Cut
	Held
)

var stateNames = [...]string{Active: "active", Draining: "draining", Cut: "cut", Held: "held"}

// String returns the state's lower-case name.
func (s State) String() string {
	if int(s) < len(stateNames) && stateNames[s] != "" {
		return stateNames[s]
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// Live reports whether the kernel may hold something of a binding in this
// state.
func (s State) Live() bool { return s == Active || s == Draining || s == Cut }
