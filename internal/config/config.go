package config

import (
	"log/slog"
	"net/netip"
	"time"
)

// Config is a whole, validated configuration. Every value is set: defaults are
// filled in.
type Config struct {
	Node     string
	Redis    Redis
	RADIUS   RADIUS
	GRPC     GRPC
	HTTP     HTTP
	NAT      NAT
	Settings Settings
	Groups   []Group
	Log      Log
}

// Redis says where the database is.
type Redis struct {
	URLs     []string // redis://, rediss:// or unix://; empty when Embedded
	Mode     string   // "", "sentinel" or "cluster"
	Embedded bool     // in-process, forgotten at exit
}

// RADIUS is the accounting listener.
type RADIUS struct {
	Listen  []string // host:port
	Clients []RADIUSClient
}

// RADIUSClient is one BNG, or a proxy in front of some.
type RADIUSClient struct {
	Name                        string
	Prefix                      netip.Prefix
	Secret                      []byte // from secret or secret_file, never empty
	RequireMessageAuthenticator bool
}

// GRPC is the control plane's listener.
type GRPC struct {
	Listen   string // host:port or unix:PATH
	TLS      TLS
	Insecure bool // plain text off loopback is wanted
}

// TLS names the files of a TLS listener; CertFile is empty without TLS.
type TLS struct {
	CertFile, KeyFile, ClientCAFile string
}

// HTTP serves metrics and health.
type HTTP struct {
	Listen string // host:port
}

// NAT says where and with what sessiond translates.
type NAT struct {
	Backend           string // "nftables" or "memory"
	NetNS             string // "" for the daemon's own
	Table             string
	InsideInterfaces  []string
	OutsideInterfaces []string
}

// Settings are the first values of what is kept in Redis and changed at run time.
type Settings struct {
	SubscriberSessionRemoval bool
	TCPEstablished           time.Duration
	TCPTransitory            time.Duration
	UDP                      time.Duration
	ICMP                     time.Duration
}

// Group is one LSN group.
type Group struct {
	Name      string
	Inside    []netip.Prefix
	Outside   []netip.Prefix
	FirstPort uint16
	LastPort  uint16 // inclusive
	BlockSize int
	Hold      time.Duration
	RecordTTL time.Duration // 0: records never expire
}

// Log says what is logged to standard error, and how.
type Log struct {
	Level  slog.Level
	Format string // "text" or "json"
}
