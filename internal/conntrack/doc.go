// Package conntrack speaks ctnetlink: it lists, counts and deletes the kernel's
// connection tracking entries of inside addresses, from an index fed by events. The
// reasons against a library are in docs/decisions/0023-own-ctnetlink.md.
package conntrack
