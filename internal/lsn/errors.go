package lsn

import "errors"

// Errors that callers decide upon. The engine wraps them with the call's arguments.
var (
	// ErrNoGroup: the group is unknown, or was removed and gives no blocks any more.
	ErrNoGroup = errors.New("no such group")
	// ErrNotInside: the address is not in an inside prefix of the group.
	ErrNotInside = errors.New("not in an inside prefix of the group")
	// ErrExhausted: no block is free; the holder waits and Advance serves it.
	ErrExhausted = errors.New("pool exhausted")
	// ErrBusy: the inside address still has a live (Active, Draining or Cut) binding.
	ErrBusy = errors.New("inside address has a live binding")
	// ErrNoBinding: the inside address has no live binding.
	ErrNoBinding = errors.New("no live binding")
	// ErrTransition: the binding cannot go from its state to the requested one.
	ErrTransition = errors.New("not a legal transition")
	// ErrConflict: the block, or the inside address, already belongs to another binding.
	ErrConflict = errors.New("conflicts with another binding")
	// ErrNotInPool: the block is not a block of the group's outside prefixes.
	ErrNotInPool = errors.New("not a block of the group's pool")
	// ErrInUse: the change of configuration would touch blocks that have holders.
	ErrInUse = errors.New("in use by bindings")
)
