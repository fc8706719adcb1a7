// Package redisconn connects to Redis: to one server, to the master that sentinels name, to
// a Cluster, or to a server inside this process. It carries commands there, many in a round
// trip, teaches servers the scripts that they do not know, and gives connections up that may
// lead to the wrong server. It knows nothing of subscribers.
//
// Reading order:
//
//	client.go     a Client: the servers of one database
//	exchange.go   many commands in a round trip, scripts among them
//	answers.go    errors: answers of Redis to one command, or the failure of an exchange
//	ahead.go      a walk that reads ahead of its reader
//	health.go     what probes and commits have found of the servers
//	dial.go       clients for one server, sentinels and a Cluster
//	redial.go     connections that can be given up
//	directconn.go connections that spare the scheduler
//	embedded.go   a Redis inside this process
package redisconn
