// Package labapi is the language in which the hosts of the container tests
// are told what to do: JSON over HTTP.
package labapi
