package nat

import (
	"encoding/binary"
	"fmt"
	"iter"
	"net/netip"
	"slices"
)

// Port is a transport port or an ICMP query identifier (RFC 5508 section 3.1).
type Port uint16

// Block is an aligned, power-of-two range of ports on one outside address.
type Block struct {
	Outside     netip.Addr
	First, Last Port // inclusive
}

// Contains reports whether the block has this port of the outside address.
func (b Block) Contains(outside netip.Addr, p Port) bool {
	return outside == b.Outside && b.First <= p && p <= b.Last
}

// Overlaps reports whether two blocks have a port in common.
func (b Block) Overlaps(x Block) bool {
	return b.Outside == x.Outside && b.First <= x.Last && x.First <= b.Last
}

// Size returns the number of ports.
func (b Block) Size() int { return int(b.Last) - int(b.First) + 1 }

// ports returns the first and the last port, as in Blocks.
func (b Block) ports() []byte {
	ports := binary.BigEndian.AppendUint16(make([]byte, 0, furtherSize), uint16(b.First))
	return binary.BigEndian.AppendUint16(ports, uint16(b.Last))
}

// Place returns the block's place.
func (b Block) Place() Place { return Place{b.Outside, b.First} }

// Place is where a block begins. It is unique: no two bindings share the first
// port of an outside address (I1).
type Place struct {
	Outside netip.Addr
	First   Port
}

// Blocks are the blocks of one binding, in the order in which they were assigned: all of
// one outside address, no two with a common port. The first one gives the binding its
// place. Blocks can be compared with ==, and With makes new ones.
type Blocks struct {
	Block
	more string // of each further block the first and the last port, two octets each
}

// furtherSize is the number of octets of a further block.
const furtherSize = 4

// With returns the blocks with a further one, which is then the newest. It returns false if
// that is empty, has port 0, is of another outside address, or has a port in common with one
// of them.
func (b Blocks) With(further Block) (Blocks, bool) {
	if further.Outside != b.Outside || further.First == 0 || further.Last < further.First {
		return b, false
	}
	for has := range b.All() {
		if further.First <= has.Last && has.First <= further.Last {
			return b, false
		}
	}
	b.more += string(further.ports())
	return b, true
}

// Len returns the number of blocks.
func (b Blocks) Len() int { return 1 + len(b.more)/furtherSize }

// All yields the blocks, the newest one last.
func (b Blocks) All() iter.Seq[Block] {
	return func(yield func(Block) bool) {
		for i := range b.Len() {
			if !yield(b.at(i)) {
				return
			}
		}
	}
}

// Newest returns the block that was assigned last: that of new sessions.
func (b Blocks) Newest() Block { return b.at(b.Len() - 1) }

// Range returns the ports for new sessions: the newest block, with those that adjoin it.
func (b Blocks) Range() Block { return b.around(b.Newest()) }

// Ranges yields the ports of the blocks as ranges that do not adjoin each other, in the
// order of the oldest block of each.
func (b Blocks) Ranges(yield func(Block) bool) {
	var seen []Block
	for x := range b.All() {
		r := b.around(x)
		if slices.Contains(seen, r) {
			continue
		}
		if seen = append(seen, r); !yield(r) {
			return
		}
	}
}

// around returns a block with those that adjoin it.
func (b Blocks) around(r Block) Block {
	for grew := true; grew; {
		grew = false
		for x := range b.All() {
			switch {
			case int(x.Last)+1 == int(r.First):
				r.First, grew = x.First, true
			case int(r.Last)+1 == int(x.First):
				r.Last, grew = x.Last, true
			}
		}
	}
	return r
}

// Covers reports whether a range has ports of these blocks only, and whole blocks.
func (b Blocks) Covers(r Block) bool {
	if r.Outside != b.Outside || r.Last < r.First {
		return false
	}
	ports := 0
	for x := range b.All() {
		if r.First <= x.First && x.Last <= r.Last {
			ports += x.Size()
		}
	}
	return ports == r.Size()
}

// Older returns the blocks without the newest one, which must not be the only one.
func (b Blocks) Older() Blocks {
	b.more = b.more[:len(b.more)-furtherSize]
	return b
}

// Has reports whether a block is one of them.
func (b Blocks) Has(x Block) bool {
	for has := range b.All() {
		if has == x {
			return true
		}
	}
	return false
}

func (b Blocks) at(i int) Block {
	if i == 0 {
		return b.Block
	}
	ports := b.more[(i-1)*furtherSize:]
	return Block{
		Outside: b.Outside,
		First:   Port(ports[0])<<8 | Port(ports[1]),
		Last:    Port(ports[2])<<8 | Port(ports[3]),
	}
}

// Contains reports whether one of the blocks has this port of the outside address.
func (b Blocks) Contains(outside netip.Addr, p Port) bool {
	for has := range b.All() {
		if has.Contains(outside, p) {
			return true
		}
	}
	return false
}

// Ports returns the ports of the blocks as people read them: "1024-1535,2048-2559".
func (b Blocks) Ports() string {
	var text []byte
	for has := range b.All() {
		text = fmt.Appendf(text, ",%d-%d", has.First, has.Last)
	}
	return string(text[1:])
}
