// Package metrics defines every metric of sessiond, by name, in one file.
//
// Counters and histograms are updated by events; states are read from a Source
// at each scrape. Labels are bounded: none names a subscriber.
package metrics
