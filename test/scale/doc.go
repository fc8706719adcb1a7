// Package scale measures what a large number of subscribers costs, and how that grows
// with the number: the built program, a real Redis with an append-only file and
// nftables in a namespace of its own, without conntrack entries. It looks from outside
// only, so that it outlives any change of the insides:
//
//   - run_test.go: a size from the first Start to the last subscriber gone, phase by phase.
//   - world_test.go: the program with its Redis and kernel, and what is asked of them.
//   - kernel_test.go: how many elements the kernel has, and nft as the peer.
//   - process_test.go, pauses_test.go: memory, processor time, and Redis's pauses.
//   - costs_test.go: the limits, and the table that is printed.
//
// `make bench` runs the sizes that SCALE names (scripts/bench.sh scale), and `go test` a
// small one, so that this cannot rot.
package scale
