// Package nases keeps data about the NASes that RADIUS clients report: their names, the
// offsets of their clocks, their clients, names that several NASes use, and the number of
// events that changed nothing. The part for operators and for the next start is stored in
// Redis, where all daemons add to it.
//
// Reading order:
//
//	registry.go the data about each NAS, names that several use, and which client reports it
//	store.go    these data in Redis
package nases
