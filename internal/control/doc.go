// Package control serves the gRPC API through which a NOC sees and steers
// sessiond.
package control
