// Command labhost plays the hosts around a CGN in the container tests: the BNG,
// a subscriber and an internet host. Each takes orders over HTTP.
package main
