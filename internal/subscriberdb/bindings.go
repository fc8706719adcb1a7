package subscriberdb

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Binding is a port block with its holder, as it is kept for the next start.
type Binding struct {
	Group         string
	Inside        netip.Addr
	Outside       netip.Addr
	First, Last   uint16 // ports, both included
	Held          bool   // in its hold: the holder is gone
	Identity      string // under which the holder gets its own block back
	UserName      string // raw octets
	AcctSessionID string // raw octets
	AllocatedAt   time.Time
	ReleasedAt    time.Time // zero unless Held
	HoldUntil     time.Time // zero unless Held
	GraceUntil    time.Time // zero unless its holder may come back to it
	Receipt       *Receipt  // of its teardown; nil unless Held
}

// Receipt is what the teardown of a binding came to, as it is kept.
type Receipt struct {
	Elements   int       `json:"elements_removed"`
	Deleted    int       `json:"sessions_deleted"`
	Proof      string    `json:"proof,omitempty"` // "index" or "table"
	CutAt      time.Time `json:"cut_at,omitzero"`
	ReapedAt   time.Time `json:"reaped_at,omitzero"`
	ReleasedAt time.Time `json:"released_at,omitzero"`
}

// Block names a binding: no two bindings share the first port of an outside
// address (I1).
type Block struct {
	Outside netip.Addr
	First   uint16
}

func (b Block) field() string { return string(b.appendField(nil)) }

func (b Block) appendField(text []byte) []byte {
	return strconv.AppendUint(append(b.Outside.AppendTo(text), ':'), uint64(b.First), 10)
}

func parseBlock(field string) (Block, error) {
	i := strings.LastIndexByte(field, ':')
	if i < 0 {
		return Block{}, fmt.Errorf("block %q: no port", field)
	}
	outside, err := netip.ParseAddr(field[:i])
	if err != nil {
		return Block{}, fmt.Errorf("block %q: %w", field, err)
	}
	first, err := strconv.ParseUint(field[i+1:], 10, 16)
	if err != nil {
		return Block{}, fmt.Errorf("block %q: %w", field, err)
	}
	return Block{outside, uint16(first)}, nil
}
