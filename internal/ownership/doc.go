// Package ownership decides which daemon serves a group or table: with names in
// a network namespace that end with their process, and a lease in the database
// for each group.
//
// Reading order:
//
//	claimant.go  the Claimant: the leases of groups, taken, renewed and given up
//	table.go     the lock of an nftables table, a name
//	name.go      names: abstract unix sockets of a network namespace
//	diag.go      the users of names, asked of the kernel
//	process.go   whether a user may program the kernel
//	namespace.go network namespaces, and their identity among all machines
package ownership
