// Command labhost plays the hosts around a CGN in the container tests: the BNG, a
// subscriber and an internet host, each told what to do over HTTP.
package main
