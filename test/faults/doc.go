// Package faults holds a harness that drives random accounting and live flows
// through a whole sessiond while it breaks the things around it, and after each
// fault compares Redis, sessionctl, nftables and conntrack with a simple model.
//
// The NASes are as they are out there: their clocks are hours off, drift and are set
// now and then, some are heard through two clients, and each tells the time of an event
// in a way of its own. What nobody can know is not asked for: while a clock that was set
// back may not be known, its NAS begins sessions only where the order of arrival decides;
// and what is kept for long counts Acct-Delay-Time, unless a known clock tells.
package faults
