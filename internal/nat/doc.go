// Package nat has the words of network address translation (RFC 4787, RFC 6888) that the
// whole program shares: ports and blocks, bindings and their states, what the kernel holds for
// an inside address, receipts of teardowns, idle timeouts. It is pure: values, and nothing that
// does anything with them.
package nat
