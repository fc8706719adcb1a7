// Package nases knows the NASes that RADIUS clients report: under which names they are heard
// of, how far their clocks are off, who reports them, which names several of them have, and
// how many of their events changed nothing. What a person, or the next start, should know of
// that is kept in Redis, where all daemons add to it.
//
// Reading order:
//
//	registry.go  what is known of each
//	store.go     the same in Redis
//	reporters.go which client reports a NAS
//	addresses.go names that several NASes have, noticed by their addresses
package nases
