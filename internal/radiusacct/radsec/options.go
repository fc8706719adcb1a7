package radsec

import (
	"cmp"
	"errors"
	"time"
)

// Options configures a Server.
type Options struct {
	// Listen holds TCP addresses, for the listen function of Open; the port for RadSec is
	// 2083. Required.
	Listen []string
	// CertFile and KeyFile name the PEM files of the server's certificate chain
	// and its key. They and ClientCAFile are read at each handshake, so that
	// renewed ones need no restart. Required.
	CertFile, KeyFile string
	// ClientCAFile names a PEM file of the CAs of client certificates. Optional if all
	// clients are identified by their fingerprints.
	ClientCAFile string
	// IdleTimeout ends connections on which nothing is received; the default is 5 minutes.
	// A watchdog is faster (RFC 3539: 30 seconds).
	IdleTimeout time.Duration
	// HandshakeTimeout bounds the time from accept to a known client; the default is
	// 10 seconds.
	HandshakeTimeout time.Duration
	// MaxConnections bounds the connections of clients; the default is 1024. A further
	// quarter may be in their handshake, where the client is not known yet.
	MaxConnections int
	// MaxConnectionsPerClient bounds those of one client; the default is 16.
	MaxConnectionsPerClient int
}

func (o *Options) validate() error {
	switch {
	case len(o.Listen) == 0:
		return errors.New("listen: no address given")
	case o.CertFile == "" || o.KeyFile == "":
		return errors.New("certificate or key file is missing")
	case o.IdleTimeout < 0 || o.HandshakeTimeout < 0 || o.MaxConnections < 0 || o.MaxConnectionsPerClient < 0:
		return errors.New("timeouts and limits of connections cannot be negative")
	}
	return nil
}

func (o Options) withDefaults() Options {
	o.IdleTimeout = cmp.Or(o.IdleTimeout, 5*time.Minute)
	o.HandshakeTimeout = cmp.Or(o.HandshakeTimeout, 10*time.Second)
	o.MaxConnections = cmp.Or(o.MaxConnections, 1024)
	o.MaxConnectionsPerClient = cmp.Or(o.MaxConnectionsPerClient, 16)
	return o
}
