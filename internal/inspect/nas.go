package inspect

import (
	"cmp"
	"time"
)

// NASKey names a NAS and orders NASes. The zero key comes before every other.
type NASKey struct {
	Client string // its realm, or the name of its RADIUS client
	Name   string // raw octets
}

// Compare orders by client, then name.
func (k NASKey) Compare(o NASKey) int {
	return cmp.Or(cmp.Compare(k.Client, o.Client), cmp.Compare(k.Name, o.Name))
}

// NAS is one access router, as its accounting shows it.
type NAS struct {
	NASKey
	Subscribers int       // online
	LastHeard   time.Time // zero where nothing was heard of it for long
	Clock       NASClock
	LastRestart time.Time         // zero for none
	Refused     map[string]uint64 // events that changed nothing, by verdict
	SameAs      NASKey            // the NAS that it was found to be; the zero key: it is itself
}

// NASClock is what is known of a NAS's clock.
type NASClock struct {
	Offset   time.Duration // how far it is ahead of ours
	Known    bool
	Unheeded bool // Offset is that of the last stamp, which is too far off to be heeded
}

// NASFilter picks NASes; zero fields match everything.
type NASFilter struct {
	Client string
	Name   string // raw octets, exact
}

// Match reports whether the NAS passes the filter.
func (f *NASFilter) Match(k NASKey) bool {
	return matches(f.Client, k.Client) && matches(f.Name, k.Name)
}
