// Package metrics defines every metric of sessiond, by name: those of gRPC's connections
// and streams in calls.go, of the audit in audit.go, of collectors of the NAT log in export.go,
// of its history in history.go, of PCP in pcp.go, all others in metrics.go. totals.go has sums
// for the console.
//
// Counters and histograms are updated by events; states are read from a Source
// at each scrape. Labels are bounded: none names a subscriber.
package metrics
