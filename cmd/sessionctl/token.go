package main

import (
	"context"
	"net"
	"net/netip"
	"os"
	"strings"
)

// bearerToken sends a token with each call; an empty one sends nothing.
type bearerToken string

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (t bearerToken) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	if t == "" {
		return nil, nil
	}
	return map[string]string{"authorization": "Bearer " + string(t)}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials. Plain
// connections within this machine are as good, so that bearer decides.
func (t bearerToken) RequireTransportSecurity() bool { return false }

// bearer reads the token, if there is one. It refuses to send it where others
// could read it. Of several in the file the first is sent.
func (c *connection) bearer() (bearerToken, error) {
	if c.token == "" {
		return "", nil
	}
	if c.tls == (tlsFiles{}) && !withinMachine(c.address) {
		return "", usagef("--token-file: the token would go to %s in plain text; use --tls-ca, or an address of this machine", c.address)
	}
	data, err := os.ReadFile(c.token)
	if err != nil {
		return "", usagef("--token-file: %w", err)
	}
	token, _, _ := strings.Cut(strings.TrimSpace(string(data)), "\n")
	if token = strings.TrimSpace(token); token == "" {
		return "", usagef("--token-file: %s is empty", c.token)
	}
	return bearerToken(token), nil
}

// withinMachine reports whether what is sent to an address stays on this
// machine.
func withinMachine(address string) bool {
	if strings.HasPrefix(address, "unix:") {
		return true
	}
	host, _, _ := net.SplitHostPort(address)
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}
