// Package controltest provides an in-memory backend behind a real gRPC server,
// for tests of the API and of its clients.
package controltest
