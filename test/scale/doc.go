// Package scale measures the costs of a large number of subscribers, and their growth
// with the number: the built program, a real Redis with an append-only file and
// nftables in a namespace of its own, without conntrack entries. It measures from outside
// only, so that it does not depend on the program's internals:
//
//   - run_test.go: a size from the first Start to the last subscriber gone, phase by phase.
//   - world_test.go: the program with its Redis and kernel, and requests to them.
//   - kernel_test.go: the number of elements in the kernel, and nft for comparison.
//   - process_test.go, pauses_test.go: memory, processor time, and Redis's pauses.
//   - costs_test.go: the limits, and the printed table.
//
// `make bench` runs the sizes that SCALE names (scripts/bench.sh scale), and `go test` a
// small one, so that the package keeps working.
package scale
