// Package doctor examines a machine, a Redis and a configuration before and beside sessiond:
// facts in, findings out. Each finding says what was found, why it matters, and which command
// mends it.
//
// It is pure; package facts reads the facts. Reading order:
//
//	doctor.go   findings, checks, and the examination
//	known.go    the facts
//	sysctl.go   checks of settings of the kernel, and of its features
//	tables.go   checks of tables of others: translations, drops, flowtables
//	network.go  checks of interfaces, routes and addresses
//	redis.go    checks of Redis
//	host.go     checks of the clock and of files
//	report.go   findings as text
package doctor
