// Package nftnat is the kernel side of the NAT: one nftables table with the
// gate and the block of every subscriber, the blackhole routes of the outside
// pools, and an in-memory twin with the same contract.
package nftnat
