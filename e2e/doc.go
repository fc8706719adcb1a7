// Package e2e tests the whole life of subscribers across containers, from outside: on the
// wire, in conntrack, in nftables and in Redis. Its tests have the build tag e2e and are
// run by run.sh.
package e2e
