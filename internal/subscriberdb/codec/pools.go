package codec

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"time"
)

// PoolKind is a change of an outside prefix at run time.
type PoolKind string

// The kinds of changes.
const (
	PoolAdded    PoolKind = "added"    // the group gives its blocks, which the configuration does not say
	PoolDraining PoolKind = "draining" // it gives none any more
	PoolRemoved  PoolKind = "removed"  // it is the group's no more, whatever the configuration says
	PoolCut      PoolKind = "cut"      // removed, and its live bindings are cut
)

// PoolChange is a change of one outside prefix of a group at run time, over its
// configuration.
type PoolChange struct {
	Prefix netip.Prefix `json:"prefix"`
	Kind   PoolKind     `json:"change"`
	At     time.Time    `json:"at"`
}

// FormatPoolChanges returns the value of a group's PoolsKey: JSON, which operators can
// read too.
func FormatPoolChanges(changes []PoolChange) ([]byte, error) { return json.Marshal(changes) }

// ParsePoolChanges parses the value of a group's PoolsKey.
func ParsePoolChanges(text []byte) ([]PoolChange, error) {
	var changes []PoolChange
	if err := json.Unmarshal(text, &changes); err != nil {
		return nil, err
	}
	for _, c := range changes {
		if err := checkPrefixes(c.Prefix); err != nil {
			return nil, err
		}
		switch c.Kind {
		case PoolAdded, PoolDraining, PoolRemoved, PoolCut:
		default:
			return nil, fmt.Errorf("%v: unknown change %q", c.Prefix, c.Kind)
		}
	}
	return changes, nil
}

// checkPrefixes returns an error that names a prefix which no configuration has.
func checkPrefixes(list ...netip.Prefix) error {
	for _, p := range list {
		if !p.IsValid() || !p.Addr().Is4() || p != p.Masked() {
			return fmt.Errorf("%v is not an IPv4 prefix without host bits", p)
		}
	}
	return nil
}
