// Package faults holds a harness that drives random accounting and live flows
// through a whole sessiond while it breaks the things around it, and after each
// fault compares Redis, sessionctl, nftables and conntrack with a simple model.
package faults
