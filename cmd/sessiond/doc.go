// Command sessiond ties Carrier-Grade NAT to the life of the subscriber: it
// takes RADIUS accounting, keeps subscriber records in Redis, and removes the
// NAT sessions of every subscriber whose record is deleted.
package main
