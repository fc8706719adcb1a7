package config

import (
	"crypto/sha256"
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
	Listen       []string // host:port
	StatusServer bool     // answer Status-Server
	InferRealms  bool     // clients without a realm that report one session report one NAS
	RadSec       RadSec
	Clients      []RADIUSClient
}

// RadSec is the accounting listener over TLS.
type RadSec struct {
	Listen                  []string // host:port
	TLS                     TLS      // CertFile is empty without RadSec
	IdleTimeout             time.Duration
	MaxConnections          int
	MaxConnectionsPerClient int
}

// RADIUSClient is one BNG, or a proxy in front of some. Several of one name are one
// client, whose sources have secrets of their own.
type RADIUSClient struct {
	Name                        string
	Prefixes                    []netip.Prefix // none for a client of RadSec alone
	Secret                      []byte         // from secret or secret_file, never empty with Prefixes
	PreviousSecret              []byte         // accepted too; empty for none
	Certificate                 Certificate
	RequireMessageAuthenticator bool
	AcknowledgeIncomplete       bool // answer and ignore what lacks mandatory attributes
	StatusServer                bool // answer Status-Server

	Realm        string            // of the clients that report the same NASes; "" for none
	NASIdentity  string            // "identifier", "address" or "both": what tells a NAS apart
	Restarts     string            // "believe", "ignore" or "confirm": Accounting-On and -Off
	Services     string            // "ignore" or "count": accounting within a session
	ServiceMarks []VendorAttribute // of accounting within a session, besides those known of vendors

	// Inside and Groups bound the addresses whose subscribers the client may report:
	// IPv4 prefixes, and names of groups whose inside prefixes count too. Without either, all.
	Inside []netip.Prefix
	Groups []string

	// MaxSubscribers is how many the client, with those of its realm, may have online; 0 for
	// no limit.
	MaxSubscribers int

	// RecordTTL is that of the client's sessions in whatever group, 0: they never
	// expire; nil leaves it to the group.
	RecordTTL *time.Duration
}

// Certificate tells by what a RadSec client is recognised; the zero value is a
// client without RadSec.
type Certificate struct {
	SAN         string            // a DNS name, IP address or URI
	Fingerprint [sha256.Size]byte // of the certificate; zero for none
}

// GRPC is the control plane's listener.
type GRPC struct {
	Listen      string // host:port or unix:PATH
	Socket      string // path of a unix socket beside Listen; "" for none
	SocketGroup string // name or number; "" for the daemon's own
	TLS         TLS
	LocalRole   string // of callers over loopback TCP: "viewer" or "admin"; "" by their user

	Insecure        bool // plain text off loopback is wanted
	InsecureClients bool // TLS without client certificates off loopback is wanted

	// What callers may take, at each listener; a peer is an address, or a local user.
	MaxConnections        int
	MaxConnectionsPerPeer int
	MaxStreams            int
	MaxStreamsPerPeer     int
	StallTimeout          time.Duration // after which a reader that takes nothing is ended
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

	OutsideToOthers             string // "drop" or "accept": flows from outside to what is neither inside nor outside
	MaxSessionsPerSubscriber    int    // 0 for no bound
	MaxUngatedSessionsPerSecond int    // 0 for no bound
}

// Settings are the first values of what is kept in Redis and changed at run time.
type Settings struct {
	SubscriberSessionRemoval string // "on", "off" or "observe"
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
	Removal   Removal
	Guard     Guard
}

// Guard bounds what a wave of removals may take from a group before it is
// confirmed. Shares are of the group's subscribers, 0 to 1; 1 bounds nothing.
type Guard struct {
	Minimum    int // so many pass in any case
	Removed    float64
	Expired    float64
	NASRestart float64
	Window     time.Duration // what counts as one wave
}

// Log says what is logged to standard error, and how.
type Log struct {
	Level  slog.Level
	Format string // "text" or "json"
}
