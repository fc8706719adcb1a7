// Package config turns a YAML file into a validated, typed configuration, or
// reports all errors in it, by file, line and key.
//
// CONTRIBUTING.md lists the steps of adding a key. Reading order:
//
//	config.go   the configuration, as the daemon uses it
//	load.go     from file to Config: the root, and the defaults
//	value.go    a value at its place in the file; mappings by their keys, and lists
//	scalars.go  values of one type: numbers, times, addresses, files
//
// Sections of the file:
//
//	redis.go    redis
//	radius.go   radius, with its clients; radsec.go: radius.radsec
//	realms.go   clients that must agree: entries of one name, and of one realm
//	grpc.go     grpc; roles.go: grpc.roles; http.go: http
//	audit.go    audit
//	export.go   export; history.go: history
//	nat.go      nat, and settings
//	groups.go   groups; removal.go: groups[].removal, and the removal mode
//	timeouts.go idle timeouts of settings and groups; alg.go: groups[].alg, which stays empty
//	nonat.go    groups[].no_nat; staticports.go: static_ports and static_mappings; pcp.go: pcp,
//	            and groups[].pcp
//	prefixes.go prefixes of all groups that overlap
//
// Around them:
//
//	bounds.go   the size and depth of the file, before it is parsed
//	report.go   errors and warnings, by line
//	restart.go  keys that a reload does not apply
package config
