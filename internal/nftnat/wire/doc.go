// Package wire implements nf_tables netlink: batches that the kernel commits as a whole or
// not at all, each error with the operation that caused it, and dumps.
//
// It contains nothing about NAT. It exists beside github.com/google/nftables v0.3.0, whose
// expressions it uses: batches of that release cannot hold a map with interval data, do not
// return the operation that failed, and read one acknowledgement for each message. All
// three were changed upstream since, in no release yet (4195a12, 3ac3a49, dca01dd); an
// error still has the kind of message and not the object, and elements are allocated one by
// one. Check v0.4 again.
package wire
