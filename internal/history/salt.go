package history

import (
	"crypto/rand"
	"crypto/sha256"
)

// A day's file has salts of its own, and no octets for each: they were 16 of the 63 octets of a
// span with its holder. The salt of a holder follows from the seed of the block of its first
// span, and from its place there. An erasure in a block replaces the seed by the salts of the
// others.

// blockSalts are the salts of one block of spans: a seed of saltSize octets, or the salt of each
// row, zero for one that is nobody's first.
type blockSalts []byte

// newSeeds returns the salts of so many blocks.
func newSeeds(blocks int) []blockSalts {
	raw := make([]byte, blocks*saltSize)
	_, _ = rand.Read(raw) // never fails: crypto/rand, since Go 1.24
	list := make([]blockSalts, blocks)
	for i := range list {
		list[i] = raw[i*saltSize : (i+1)*saltSize : (i+1)*saltSize]
	}
	return list
}

// of returns the salt of a holder whose first span is that row of the block.
func (b blockSalts) of(row int) (salt [saltSize]byte) {
	if len(b) > saltSize {
		copy(salt[:], b[row*saltSize:])
		return salt
	}
	sum := sha256.Sum256(append(append(make([]byte, 0, saltSize+1), b...), byte(row)))
	copy(salt[:], sum[:])
	return salt
}

// valid reports whether they are of one of the two forms.
func (b blockSalts) valid() bool { return len(b) == saltSize || len(b) == spanRows*saltSize }

// without returns the salts of the rows that are kept, as those of the others cannot follow from
// a seed.
func (b blockSalts) without(kept func(row int) bool) blockSalts {
	list := make(blockSalts, spanRows*saltSize)
	for row := range spanRows {
		if kept(row) {
			salt := b.of(row)
			copy(list[row*saltSize:], salt[:])
		}
	}
	return list
}
