// Package control serves the gRPC API with which a NOC monitors and controls
// sessiond.
package control
