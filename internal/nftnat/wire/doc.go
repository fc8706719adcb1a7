// Package wire speaks nf_tables netlink: batches that the kernel commits whole
// or not at all, with every error traced to the operation it came from, and
// dumps.
//
// It knows nothing of NAT. It stands beside github.com/google/nftables v0.3.0, whose
// expressions it carries: batches of that release cannot hold a map with interval data, do
// not say which of their operations failed, and read one acknowledgement for each message.
// All three were changed upstream since, in no release yet (4195a12, 3ac3a49, dca01dd); an
// error still names the kind of message and not the object, and elements are allocated one
// by one. Look again at v0.4.
package wire
