// Package portmap keeps the mappings of one group that outlive their sessions: ports of
// outside addresses that belong to subscribers, from a range that no block has a part of. It
// is pure: time is an argument, and nothing is stored or programmed here.
package portmap
