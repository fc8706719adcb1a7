package inspect

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/lsn"
)

// Pool counts the blocks of an outside prefix, and says where the prefix comes from.
type Pool struct {
	lsn.Usage
	Origin    PoolOrigin
	Change    PoolChange
	ChangedAt time.Time // of Change; zero for none
}

// PoolOrigin is where an outside prefix comes from.
type PoolOrigin uint8

// The origins of outside prefixes.
const (
	PoolConfigured PoolOrigin = iota + 1 // the configuration
	PoolRunTime                          // added at run time
	PoolFormer                           // neither any more: it drains
)

// PoolChange is a change of an outside prefix at run time.
type PoolChange uint8

// The changes of outside prefixes; the zero one is none.
const (
	PoolAdded PoolChange = iota + 1
	PoolDrained
	PoolRemoved
)

// ErrPoolConflict: the group cannot have the outside prefix, or the configuration says
// something else about it.
var ErrPoolConflict = errors.New("the pools stay as they are")

// LiveBindingsError refuses the removal of an outside prefix that has live bindings, or ports
// of mappings.
type LiveBindingsError struct {
	Outside  netip.Prefix
	Bindings int
	Mappings int // static ones
}

// Error implements error.
func (e *LiveBindingsError) Error() string {
	if e.Mappings > 0 {
		return fmt.Sprintf("live bindings: %d, static mappings: %d", e.Bindings, e.Mappings)
	}
	return fmt.Sprintf("live bindings: %d", e.Bindings)
}

// Advice says what the caller can do.
func (e *LiveBindingsError) Advice() string {
	if e.Mappings > 0 {
		return "drain it, delete its mappings, and remove it when the bindings have ended, or allow the disruption, which ends them all"
	}
	return "drain it and remove it when they have ended, or allow the disruption, which cuts them"
}
