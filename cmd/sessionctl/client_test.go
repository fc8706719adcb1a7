package main

import (
	"net"
	"path/filepath"
	"testing"
)

// TestReachable: the unix socket of a running daemon is preferred to its TCP
// address; the socket of a dead one is not.
func TestReachable(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	if got := reachable(path); got != defaultAddress {
		t.Errorf("without a socket: %s", got)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if got := reachable(path); got != "unix:"+path {
		t.Errorf("with one: %s", got)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if got := reachable(path); got != defaultAddress {
		t.Errorf("with one of a dead daemon: %s", got)
	}
}
