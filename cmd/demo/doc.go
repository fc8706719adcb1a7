// Command demo shows the main job of sessiond in a lab of network namespaces:
// the real program, the real kernel, a real Redis and real packets. It prints
// each step with its evidence from the network, nftables and conntrack, and
// exits 0 only if every step succeeded. It removes everything that it made.
package main
