package control

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/sessiond/sessiond/internal/quota"
)

// Limits bound what callers can take of the daemon. A peer is who has an address (an
// IPv6 peer a /64) or, on this machine, an address and a user. Zero fields have the
// defaults of DefaultLimits. The numbers are those of each listener: whoever fills
// one leaves the others as they were.
type Limits struct {
	Connections        int           // at least 1
	ConnectionsPerPeer int           // at least 1
	Streams            int           // at least 1
	StreamsPerPeer     int           // at least 1
	StallTimeout       time.Duration // how long a reader of a stream may take nothing
}

// DefaultLimits are enough for a NOC with some dashboards, and cost no more than some
// tens of MB if all of them stall.
func DefaultLimits() Limits {
	return Limits{Connections: 256, ConnectionsPerPeer: 32, Streams: 128, StreamsPerPeer: 32, StallTimeout: 30 * time.Second}
}

func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	return Limits{
		Connections:        cmp.Or(l.Connections, d.Connections),
		ConnectionsPerPeer: cmp.Or(l.ConnectionsPerPeer, d.ConnectionsPerPeer),
		Streams:            cmp.Or(l.Streams, d.Streams),
		StreamsPerPeer:     cmp.Or(l.StreamsPerPeer, d.StreamsPerPeer),
		StallTimeout:       cmp.Or(l.StallTimeout, d.StallTimeout),
	}
}

func (l Limits) check() error {
	if l.Connections < 0 || l.ConnectionsPerPeer < 0 || l.Streams < 0 || l.StreamsPerPeer < 0 || l.StallTimeout < 0 {
		return errors.New("control: Limits cannot be negative")
	}
	return nil
}

// RefusalCauses returns why connections and streams are refused.
func RefusalCauses() []string { return []string{quota.Limit, quota.PeerLimit} }

// limitError says which limit is reached, and what to do.
type limitError struct {
	cause string // one of RefusalCauses
	text  string
}

func (e *limitError) Error() string { return e.text }

// tally is a quota that says which key of the configuration it is.
type tally struct {
	*quota.Quota
	what    string // is counted, in the plural; the keys are grpc.max_WHAT and so on
	most    int
	perPeer int
}

func newTally(what string, most, perPeer int) *tally {
	return &tally{quota.New(most, perPeer), what, most, perPeer}
}

// enter counts one more of the peer, or returns which limit it would pass. Each
// enter without an error has one Leave.
func (t *tally) enter(peer string) *limitError {
	switch cause := t.Enter(peer); cause {
	case "":
		return nil
	case quota.PeerLimit:
		return &limitError{cause, fmt.Sprintf(
			"%s has %d %s open, and may have no more; end some, or raise grpc.max_%s_per_peer", peer, t.perPeer, t.what, t.what)}
	default:
		return &limitError{cause, fmt.Sprintf(
			"%d %s are open here, and may be no more; end some, or raise grpc.max_%s", t.most, t.what, t.what)}
	}
}
