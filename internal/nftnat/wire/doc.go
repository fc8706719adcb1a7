// Package wire speaks nf_tables netlink: batches that the kernel commits whole
// or not at all, with every error traced to the operation it came from, and
// dumps.
//
// It knows nothing of NAT. It stands beside github.com/google/nftables, whose
// expressions it carries, because that library's batches cannot hold a map
// with interval data, do not say which of their operations failed, and read
// one acknowledgement for each message.
package wire
