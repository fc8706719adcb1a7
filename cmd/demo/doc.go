// Command demo shows the main job of sessiond in a lab of network namespaces:
// the real program, the real kernel, a real Redis and real packets. It prints
// each step with what was seen on the wire, in nftables and in conntrack, and
// exits 0 only if every step was seen to hold. It leaves nothing behind.
package main
