package config

import (
	"crypto/sha256"
	"log/slog"
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/natlog"
)

// Config is a whole, validated configuration with all defaults filled in.
type Config struct {
	Node     string
	Redis    Redis
	RADIUS   RADIUS
	GRPC     GRPC
	HTTP     HTTP
	NAT      NAT
	Settings Settings
	Groups   []Group
	PCP      PCP
	Log      Log
	Audit    Audit
	Export   Export
	History  History
}

// Redis is the connection to the database.
type Redis struct {
	URLs     []string // redis://, rediss:// or unix://; empty when Embedded
	Mode     string   // "", "sentinel" or "cluster"
	Embedded bool     // in-process, lost at exit
}

// RADIUS is the accounting listener.
type RADIUS struct {
	Listen       []string // host:port
	StatusServer bool     // answer Status-Server
	InferRealms  bool     // clients without a realm that report the same session report the same NAS
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

// RADIUSClient is one BNG, or a proxy in front of some. Several with one name
// are one client with several sources, each with its own secret.
type RADIUSClient struct {
	Name                        string
	Prefixes                    []netip.Prefix // none for a client with RadSec only
	Secret                      []byte         // from secret or secret_file, never empty with Prefixes
	PreviousSecret              []byte         // accepted as well; empty for none
	Certificate                 Certificate
	RequireMessageAuthenticator bool
	AcknowledgeIncomplete       bool // answer and ignore requests without mandatory attributes
	StatusServer                bool // answer Status-Server

	Realm        string            // of the clients that report the same NASes; "" for none
	NASIdentity  string            // "identifier", "address" or "both": the attributes that identify a NAS
	Restarts     string            // "believe", "ignore" or "confirm": Accounting-On and -Off
	Services     string            // "ignore" or "count": accounting within a session
	ServiceMarks []VendorAttribute // of accounting within a session, beside the known vendors' marks

	// Inside and Groups bound the addresses that the client may report: IPv4
	// prefixes, and names of groups whose inside prefixes are added. If both are
	// empty, it may report all.
	Inside []netip.Prefix
	Groups []string

	// MaxSubscribers bounds the online subscribers of the client and of the others
	// in its realm; 0 for no limit.
	MaxSubscribers int

	// RecordTTL applies to the client's sessions in every group. 0: they never
	// expire; nil: the group's value applies.
	RecordTTL *time.Duration
}

// VendorAttribute names an attribute within Vendor-Specific (RFC 2865 section 5.26).
type VendorAttribute struct {
	Vendor uint32
	Type   uint8
}

// Certificate identifies a RadSec client; the zero value is a client without
// RadSec.
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
	LocalRole   string // of callers over loopback TCP: "none", "viewer", "operator" or "admin"
	Roles       []GRPCRole

	Insecure        bool // plain text on a listener off loopback is intended
	InsecureClients bool // TLS without client certificates off loopback is intended

	// Limits of callers at each listener; a peer is an address, or a local user.
	MaxConnections        int
	MaxConnectionsPerPeer int
	MaxStreams            int
	MaxStreamsPerPeer     int
	StallTimeout          time.Duration // time until a stream is ended whose reader takes nothing
	CallTimeout           time.Duration // longest time of a call that is no stream
}

// GRPCRole gives a role to whoever is known by one of SAN, TokenFile and
// UnixGroup.
type GRPCRole struct {
	Role      string // "viewer", "operator" or "admin"
	SAN       string // DNS name or URI
	TokenFile string
	Name      string // of the holder of the tokens
	UnixGroup string // name or number
}

// TLS names the files of a TLS listener; CertFile is empty without TLS.
type TLS struct {
	CertFile, KeyFile, ClientCAFile string
}

// ServerTLS names the files of a TLS listener whose clients show no certificates; CertFile is empty
// without TLS.
type ServerTLS struct {
	CertFile, KeyFile string
}

// Audit is the trail of the changes that callers of gRPC order.
type Audit struct {
	File      string // path of a copy; "" for none
	Syslog    string // URL of a server that gets a copy; "" for none
	Retention AuditRetention
}

// AuditRetention bounds the entries of each trail in Redis.
type AuditRetention struct {
	Entries int
	Age     time.Duration // 0 for no bound
}

// History keeps who had which public port when, from the log of the NAT.
type History struct {
	Path       string        // directory; "" for no history
	MaxAge     time.Duration // after it a record is removed; 0: never
	MaxOctets  int64         // of complete files; beyond, the oldest go; 0: no bound
	Interim    time.Duration // interval of comparisons with the blocks in service
	SigningKey string        // path of the key that signs checkpoints; "": in Path
}

// Export sends the log of the NAT to collectors. Without a collector or a history there is no such
// log.
type Export struct {
	Collectors []Collector
	Interim    time.Duration // after it, each block in service is told again
	SpoolPath  string        // directory of the spools
	SpoolSize  int64         // octets of each
}

// Collector is one collector of the NAT log.
type Collector struct {
	Protocol         natlog.Protocol
	Target           string
	Domain           uint32
	FixedNames       bool          // IPFIX: user names have 64 octets
	TemplateInterval time.Duration // 0: natlog's default
	PEN              uint32        // of syslog; 0: natlog's default
	Batch            int           // of HTTP; 0: natlog's default
}

// HTTP serves metrics, health and the console.
type HTTP struct {
	Listen        string // host:port
	TLS           ServerTLS
	Console       bool     // serve the console beside metrics and health
	AnonymousRole string   // of visitors of the console who have not signed in: "viewer" or "none"
	Hosts         []string // names of this server in browsers, beside those of loopback and its addresses
}

// NAT is the kernel side: backend, namespace, table and interfaces.
type NAT struct {
	Backend           string // "nftables" or "memory"
	NetNS             string // "" for the daemon's own
	Table             string
	InsideInterfaces  []string
	OutsideInterfaces []string

	Flowtables                  string // "refuse", "accept" or "own": which flowtables may carry flows of subscribers
	OutsideToOthers             string // "drop" or "accept": flows from outside to addresses neither inside nor outside
	MaxSessionsPerSubscriber    int    // 0 for no bound
	MaxUngatedSessionsPerSecond int    // 0 for no bound
	MaxMappings                 int    // learned mappings of all groups, at least 1
}

// Settings are the initial values of the settings that Redis keeps and
// operators change at run time.
type Settings struct {
	SubscriberSessionRemoval string // "on", "off" or "observe"
	IdleTimeouts
}

// IdleTimeouts are those of sessions. Zero in a group: the live setting's.
type IdleTimeouts struct {
	TCPEstablished  time.Duration
	TCPTransitory   time.Duration
	TCPPartialOpen  time.Duration // 0: TCPTransitory
	TCPPartialClose time.Duration // 0: TCPTransitory
	UDP             time.Duration
	ICMP            time.Duration
}

// Group is one LSN group.
type Group struct {
	Name      string
	Inside    []netip.Prefix
	Outside   []netip.Prefix
	Draining  []netip.Prefix // outside prefixes besides, that give no blocks
	FirstPort uint16
	LastPort  uint16 // inclusive
	BlockSize int
	MaxBlocks int    // of one subscriber; 1: its block never grows
	Mapping   string // EndpointIndependent, or "": conntrack's own choice of ports
	Overload  bool   // a port may have several inside endpoints, of which one is mapped
	Filtering string // EndpointIndependent, which has that Mapping too, or AddressAndPortDependent
	Hold      time.Duration

	Deterministic bool // each inside address has one block, by its number (RFC 7422)

	RecordTTL time.Duration // 0: records never expire
	Removal   Removal
	Guard     Guard
	NoNAT     []NoNAT
	Static    StaticPorts
	PCP       GroupPCP
	Limits    Limits

	IdleTimeouts IdleTimeouts // in the place of the live settings' where not zero
	PortTimeouts []PortTimeout
}

// PortTimeout is the idle timeout of sessions to one destination port.
type PortTimeout struct {
	Protocol string // "tcp" or "udp"
	Port     uint16
	Timeout  time.Duration
}

// Limits bound the sessions and ports of one subscriber; 0 is no limit.
type Limits struct {
	Sessions             int // that the subscriber began, at a time
	NewSessionsPerSecond int
	TCPPorts             int // inside ports in use
	UDPPorts             int
	Reserve              int // sessions that it may have while the conntrack table is nearly full
}

// Behaviours of mapping and filtering (RFC 4787 sections 4.1 and 5).
const (
	EndpointIndependent     = "endpoint_independent"
	AddressAndPortDependent = "address_and_port_dependent"
)

// Removal is the grace time of a group's subscribers after the end of a record.
type Removal struct {
	Grace       time.Duration // 0: none
	GraceCauses []uint32      // Acct-Terminate-Causes with grace time
}

// Guard bounds the removals of a wave in a group before the wave is confirmed.
// Shares are of the group's subscribers, 0 to 1; 1 means no bound.
type Guard struct {
	Minimum    int // this many removals pass in any case
	Removed    float64
	Expired    float64
	NASRestart float64
	Window     time.Duration // time between removals within which they are one wave
}

// Log is the level and format of the log on standard error.
type Log struct {
	Level  slog.Level
	Format string // "text" or "json"
}
