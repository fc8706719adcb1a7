// Package labapi is the protocol between the container tests and their hosts:
// orders in JSON over HTTP.
package labapi
