package doctor

import (
	"io/fs"
	"net/netip"
	"strings"
	"time"
)

// Facts are what is known about machine, Redis and configuration. Those of the network are of
// the namespace of the NAT.
type Facts struct {
	Config     Config
	Sysctls    map[string]string // by name, such as net.ipv4.ip_forward; absent: the kernel lacks it
	Missing    []Missing
	Links      []Link
	Routes     []Route  // of the main table: default ones, and those that overlap a prefix of the configuration
	Programmed bool     // sessiond's table is there
	Open       []string // outside interfaces without a barrier
	Chains     []Chain
	Rules      []Rule
	Flowtables []Flowtable
	Helpers    []string // conntrack helpers of all tables, in words
	Redis      []Redis
	Clock      *Clock // nil: not known
	Files      []File
	Unread     []Unread
}

// Config is the part of the configuration that the checks need.
type Config struct {
	File       string   // path
	Namespace  string   // nat.netns
	Inside     []string // interfaces; one that ends in * stands for all that begin so
	Outside    []string
	Groups     []Group
	Flowtables string        // nat.flowtables
	ICMP       time.Duration // the longest idle timeouts of all groups
	TCP        time.Duration // of established sessions
	UDP        time.Duration
}

// Group is a group's prefixes, and the size of its pools.
type Group struct {
	Name      string
	Inside    []netip.Prefix
	Outside   []netip.Prefix // draining ones too
	BlockSize int            // ports
	Blocks    int            // of all its outside prefixes
}

// Unread names facts that could not be read.
type Unread struct{ What, Err string }

// Missing is a feature that the kernel lacks.
type Missing struct {
	Module string // "" where it is not known
	Err    string
}

// Link is a network interface.
type Link struct {
	Name      string
	Up        bool
	Addresses []netip.Prefix // IPv4, with the length of the network's prefix
}

// Route is an IPv4 route of the main table.
type Route struct {
	To        netip.Prefix
	Device    string // "" for a blackhole
	Blackhole bool
}

// Chain is a base chain of a table that is not sessiond's, of family ip or inet.
type Chain struct {
	Family, Table, Name string
	Type                string // "filter", "nat", "route"
	Hook                string // "prerouting", "input", "forward", "output", "postrouting"
	Priority            int32
	PolicyDrop          bool
}

// Rule is a rule of such a table, with the effects that concern subscribers.
type Rule struct {
	Family, Table, Chain string
	Handle               uint64

	Translates bool   // the source of packets
	Untracked  bool   // notrack
	Quiet      bool   // it makes conntrack leave out events
	Flowtable  string // to which it adds flows
	Accepts    bool
	Jumps      bool // to another chain

	Input, Output string       // the interfaces that it names, as in Config; "" for any
	Source        netip.Prefix // the zero prefix for any
	Narrow        bool         // it has other conditions besides
}

// Flowtable is a flowtable of such a table.
type Flowtable struct {
	Family, Table, Name string
	Devices             []string
	Hardware            bool
}

// Redis is one server of the database.
type Redis struct {
	Address string // of the server, without secrets
	CLI     string // redis-cli with the options that lead there
	Err     string // why it does not answer; all else is empty then

	Version       string
	Replica       bool
	AppendOnly    bool
	Fsync         string // appendfsync; "" where it is not known
	Snapshots     bool   // save is set; true where it is not known
	ConfigFile    string // "" for none
	Policy        string // maxmemory-policy
	Memory        uint64 // octets in use
	MaxMemory     uint64 // octets; 0 for no bound
	Events        string // notify-keyspace-events
	EventsKnown   bool   // the user may CONFIG GET
	EventsLacking string // the flags that Events lacks
	Configurable  bool   // the user may CONFIG SET
	User          string
	Refused       []string      // commands that the user may not, as in a rule of an ACL
	RefusedKeys   []string      // keys
	RefusedEvents bool          // the channels of keyspace events
	Latency       time.Duration // the median of some round trips; 0: not known
	Ahead         time.Duration // of this machine's clock
}

// Clock is the state of the machine's clock.
type Clock struct{ Synchronized bool }

// File is the configuration, or a file that it names.
type File struct {
	Path   string
	Mode   fs.FileMode
	Secret bool
}

// inNamespace returns a command for a shell that runs one in the namespace of the NAT.
func (c *Config) inNamespace(command string) string {
	switch {
	case c.Namespace == "":
		return command
	case strings.ContainsRune(c.Namespace, '/'):
		return "nsenter --net=" + Quote(c.Namespace) + " " + command
	}
	return "ip netns exec " + Quote(c.Namespace) + " " + command
}

// Quote quotes a word for a shell, where it needs to be.
func Quote(word string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:@,=+", r)
	}
	if word != "" && strings.IndexFunc(word, func(r rune) bool { return !plain(r) }) < 0 {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// matches reports whether an interface is one of a list of the configuration.
func matches(list []string, name string) bool {
	for _, l := range list {
		begin, dialled := strings.CutSuffix(l, "*")
		if l == name || dialled && strings.HasPrefix(name, begin) {
			return true
		}
	}
	return false
}
