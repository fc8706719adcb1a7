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

// NAS is one access router, as known from its accounting.
type NAS struct {
	NASKey
	Subscribers int       // online
	LastHeard   time.Time // zero if it has sent nothing for long
	Clock       NASClock
	LastRestart time.Time         // zero for none
	Refused     map[string]uint64 // events that changed nothing, by verdict
	SameAs      NASKey            // the NAS that this one is another name of; zero for none
	Endings     NASEndings        // for its last restart that ended any; zero for none since the daemon began
}

// NASClock is the learned clock of a NAS.
type NASClock struct {
	Offset   time.Duration // of the NAS's clock, ahead of ours
	Known    bool
	Unheeded bool // Offset is that of the last stamp, which is too far off to be used
}

// NASFilter selects NASes; zero fields match all.
type NASFilter struct {
	Client string
	Name   string // raw octets, exact
}

// Match reports whether the NAS passes the filter.
func (f *NASFilter) Match(k NASKey) bool {
	return matches(f.Client, k.Client) && matches(f.Name, k.Name)
}
