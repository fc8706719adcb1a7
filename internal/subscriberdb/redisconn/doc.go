// Package redisconn connects to Redis: to one server, to the master that sentinels name, to
// a Cluster, or to a server inside this process. It sends many commands in one round trip,
// loads scripts into servers that do not have them, and redials connections that may lead
// to the wrong server. It contains nothing about subscribers.
//
// Reading order:
//
//	client.go   the servers of one database, many commands in a round trip, and their errors
//	health.go   the state of the servers, from probes and commits
//	dial.go     clients for one server, sentinels and a Cluster; connections that can be redialled
//	embedded.go a Redis inside this process
package redisconn
