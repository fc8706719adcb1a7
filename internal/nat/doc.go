// Package nat defines the types of network address translation (RFC 4787, RFC
// 6888) that the whole program shares: ports and blocks, bindings and their
// states, the kernel state of an inside address, receipts of teardowns, idle
// timeouts. It is pure: values, and checks of them.
package nat
