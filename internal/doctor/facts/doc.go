// Package facts reads the facts of a machine, a Redis and a configuration that package doctor
// examines. It changes nothing, needs no daemon, and leaves out what it may not read.
//
//	facts.go  all facts; the configuration, files and the clock
//	host.go   the network namespace of the NAT: sysctls, interfaces, routes, tables
//	redis.go  the servers of the database
package facts
