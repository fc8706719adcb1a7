// Package e2e tests the whole life of subscribers across containers, from outside: on the
// wire, in conntrack, in nftables and in Redis. What happens and what must be seen then are
// the scripts in scenarios; their commands are explained in README.md and defined here. The
// tests have the build tag e2e, and are run by run.sh, in the lab of deploy/lab.
//
// Reading order:
//
//	scenarios/       the scripts
//	script_test.go   what runs them, and the commands by name
//	life_test.go     commands about one subscriber's life, by RADIUS and Redis
//	traffic_test.go  commands about its traffic
//	outage_test.go   commands that stop, replace and cut off containers
//	look_test.go     bindings, kernel state and packets, as the commands see them
//	stack_test.go    the containers
//	shipped_test.go  the docker-compose.yml that is shipped, without the lab
package e2e
