// Package faults drives random accounting and live flows through a whole sessiond while it
// injects faults around it. After each fault it compares Redis, sessionctl, nftables and
// conntrack with a simple model.
//
// The subscribers are of several groups (groups_test.go): one whose pools change at run time,
// one whose bindings grow and shrink, one of full cone, one with limits, a deterministic one.
// The groups have the same operations and faults; what is particular to one is checked for its
// bindings, sets and packets (traffic_test.go, cone_test.go, pools_test.go). What leaves is
// watched on the internet's side (leaks_test.go).
//
// In all groups subscribers have static mappings, which are made, changed and deleted
// (mappings_test.go), and offer services there, which a host outside reaches while the mapping is
// in force, and at no other time (services_test.go).
//
// The NASes are like real ones: their clocks are hours off, drift and are set now and then,
// some are heard through two clients, and each reports the time of an event in its own way.
// The harness does not check results that depend on unknown facts. While a clock that was
// set back may be unknown, its NAS begins sessions only where the order of arrival decides;
// and delayed requests count Acct-Delay-Time, unless the clock is known.
package faults
