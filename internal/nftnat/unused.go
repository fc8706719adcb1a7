package nftnat

import (
	"github.com/google/nftables"
	"github.com/sessiond/sessiond/internal/nftnat/wire"
)

// A table that was made and never programmed carries an empty set, the mark. It tells a later
// start that no port was in use, nor is in quarantine, even if the database has no memory. The
// mark goes with the first elements, and never returns; a table of an earlier version has
// none.

// unusedMark is the mark: a set that no rule refers to.
var unusedMark = set{
	name:     setUnused,
	shape:    shape{keyType: nftables.TypeIPAddr.GetNFTMagic(), keyLen: addressLen},
	userdata: byteOrders(orderBig),
}

// unused reports whether the table carries the mark.
func (s *actualRuleset) unused() bool {
	_, ok := s.sets[setUnused]
	return ok
}

// dropUnused takes the mark away, in the transaction that programs the first elements.
func dropUnused(b *wire.Batch, table string) {
	b.Add(wire.DelSet, wire.Op{Verb: "delete set", Object: setUnused}, func(dst []byte) []byte {
		return appendSetName(dst, table, setUnused)
	})
}
