// Package redisconn connects to Redis: to one server, to the master that sentinels name, to
// a Cluster, or to a server inside this process. It sends many commands in one round trip,
// loads scripts into servers that do not have them, and redials connections that may lead
// to the wrong server. It contains nothing about subscribers.
//
// Reading order:
//
//	client.go     a Client: the servers of one database
//	exchange.go   many commands in a round trip, scripts among them
//	answers.go    errors: answers of Redis to one command, or the failure of an exchange
//	ahead.go      reading of a batch while the last one is processed
//	health.go     the state of the servers, from probes and commits
//	dial.go       clients for one server, sentinels and a Cluster
//	redial.go     connections that can be redialled
//	directconn.go connections that avoid the cost of the scheduler
//	embedded.go   a Redis inside this process
package redisconn
