// Package nat defines the types of network address translation (RFC 4787, RFC
// 6888) that the whole program shares: ports and blocks, bindings and their
// states, the kernel state of an inside address, receipts of teardowns, idle
// timeouts. It is pure: values, and checks of them.
//
// Reading order:
//
//	block.go    ports and blocks; the blocks of one binding
//	binding.go  a binding: its holder, state and times
//	entry.go    the kernel state of one inside address: gate, block, mappings
//	receipt.go  the result of a teardown, and the proof in it
//	mapping.go  mappings that outlive their sessions, and their endpoints
//	pin.go      ports of new sessions, where these are not the range of all
//	session.go  a conntrack entry, from its subscriber
//	event.go    entries in the log of a NAT: blocks assigned and released, limits reached
//	portuse.go  ports in use, by protocol
//
// Settings of groups:
//
//	learned.go  mapping and filtering
//	limits.go   what one subscriber may open
//	timeouts.go idle timeouts
//	nonat.go    destinations that see inside addresses
//
// And drop.go: reasons for which packets do not pass.
package nat
