package inspect

import "errors"

// Errors of requests. Implementations wrap these with context; the gRPC
// services map each to one code.
var (
	ErrNotFound    = errors.New("not found")                                 // no such subscriber, binding or NAS
	ErrNotCovered  = errors.New("no history is kept of that time")           // LookupOutside before the present state began
	ErrNoHistory   = errors.New("no history of the NAT is configured")       // history.path is empty
	ErrHistoryDown = errors.New("the history of the NAT cannot be opened")   // the log says why
	ErrNoGroup     = errors.New("no group has this inside address")          // the address is in no group's inside prefixes, or not in the named one's
	ErrNotReady    = errors.New("still recovering state after the start")    // ask again shortly
	ErrUnavailable = errors.New("the database cannot be reached")            // nothing was changed, or the outcome is unknown
	ErrFull        = errors.New("nothing new can be written: Redis is full") // raise its maxmemory; subscribers can be ended all the same
	ErrConflict    = errors.New("changed by somebody else at the same time") // nothing was changed; read again
	ErrLagging     = errors.New("watcher fell too far behind")               // events were lost; list, then watch again
	ErrListAgain   = errors.New("events were lost; list, then watch again")  // the watch cannot go on where it was
)
