// Package metrics has every metric of sessiond, by name, in one file.
//
// Counters and histograms are fed as things happen; what is a state is read
// from a Source when somebody scrapes. Labels are bounded: none names a
// subscriber.
package metrics
