package history

import (
	"crypto/sha256"
	"encoding/binary"

	"golang.org/x/mod/sumdb/tlog"
)

// leafData returns the octets of a record in the Merkle tree of its file.
func (s *span) leafData(to []byte, group string, commitment [sha256.Size]byte) []byte {
	to = appendString(append(to, "record\n"...), group)
	to = binary.BigEndian.AppendUint32(to, s.outside)
	to = binary.BigEndian.AppendUint16(to, uint16(s.first))
	to = binary.BigEndian.AppendUint16(to, uint16(s.last))
	for _, t := range [...]microTime{s.allocated, s.released, s.vacant} {
		to = binary.BigEndian.AppendUint64(to, uint64(t))
	}
	return append(to, commitment[:]...)
}

// hashTree has the hashes of whole subtrees from one level up. Those below, and of leaves at
// the end that are no whole subtree, come from leaves.
type hashTree struct {
	lowest int
	levels [][]tlog.Hash // from lowest on
	leaves func(block int64) ([]tlog.Hash, error)
}

// newTree returns a tree of the subtrees of a level, and of the leaves of each.
func newTree(lowest int, subtrees []tlog.Hash, leaves func(block int64) ([]tlog.Hash, error)) *hashTree {
	t := &hashTree{lowest: lowest, leaves: leaves}
	for len(subtrees) > 0 {
		t.levels = append(t.levels, subtrees)
		subtrees = parentsOf(subtrees)
	}
	return t
}

// parentsOf returns the level above a level, of whole subtrees.
func parentsOf(level []tlog.Hash) []tlog.Hash {
	up := make([]tlog.Hash, len(level)/2)
	for i := range up {
		up[i] = tlog.NodeHash(level[2*i], level[2*i+1])
	}
	return up
}

// subtreeOf returns the hash of a whole subtree.
func subtreeOf(leaves []tlog.Hash) tlog.Hash {
	for len(leaves) > 1 {
		leaves = parentsOf(leaves)
	}
	return leaves[0]
}

// ReadHashes returns the hashes with these indexes of tlog.
func (t *hashTree) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		level, n := tlog.SplitStoredHashIndex(x)
		if level >= t.lowest {
			hashes[i] = t.levels[level-t.lowest][n]
			continue
		}
		size := int64(1) << level
		at := n * size
		block := at >> t.lowest
		leaves, err := t.leaves(block)
		if err != nil {
			return nil, err
		}
		at -= block << t.lowest
		if at+size > int64(len(leaves)) {
			return nil, errBlock
		}
		hashes[i] = subtreeOf(leaves[at : at+size])
	}
	return hashes, nil
}
