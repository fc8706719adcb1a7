// Package conntrack speaks ctnetlink: it lists, counts and deletes the kernel's
// connection tracking entries of inside addresses, from an index fed by events.
package conntrack
