package control

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/sessiond/sessiond/internal/quota"
)

// Limits bound a caller's use of the daemon. A peer is an address (of IPv6 a
// /64), or a user of this machine on a unix socket. Zero fields take the values
// of DefaultLimits. Each listener counts for itself: if one is full, the others
// still serve.
type Limits struct {
	Connections        int           // at least 1
	ConnectionsPerPeer int           // at least 1
	Streams            int           // at least 1
	StreamsPerPeer     int           // at least 1
	StallTimeout       time.Duration // longest time in which a stream's reader may take nothing
	CallTimeout        time.Duration // longest time of a call that is no stream

	// SilenceTimeout is the longest silence of a peer, at least a second. Then it is asked for a
	// sign of life, and loses its connection without one in a third of that time.
	SilenceTimeout time.Duration
}

// DefaultLimits suit a NOC with some dashboards, and bound the memory to some
// tens of MB if all streams stall.
func DefaultLimits() Limits {
	return Limits{Connections: 256, ConnectionsPerPeer: 32, Streams: 128, StreamsPerPeer: 32, StallTimeout: 30 * time.Second, CallTimeout: 10 * time.Minute, SilenceTimeout: time.Minute}
}

func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	return Limits{
		Connections:        cmp.Or(l.Connections, d.Connections),
		ConnectionsPerPeer: cmp.Or(l.ConnectionsPerPeer, d.ConnectionsPerPeer),
		Streams:            cmp.Or(l.Streams, d.Streams),
		StreamsPerPeer:     cmp.Or(l.StreamsPerPeer, d.StreamsPerPeer),
		StallTimeout:       cmp.Or(l.StallTimeout, d.StallTimeout),
		CallTimeout:        cmp.Or(l.CallTimeout, d.CallTimeout),
		SilenceTimeout:     cmp.Or(l.SilenceTimeout, d.SilenceTimeout),
	}
}

func (l Limits) check() error {
	if l.Connections < 0 || l.ConnectionsPerPeer < 0 || l.Streams < 0 || l.StreamsPerPeer < 0 || l.StallTimeout < 0 || l.CallTimeout < 0 || l.SilenceTimeout < 0 {
		return errors.New("control: Limits cannot be negative")
	}
	return nil
}

// RefusalCauses returns all causes of refused connections and streams.
func RefusalCauses() []string { return []string{quota.Limit, quota.PeerLimit} }

// limitError names the limit that is reached, with advice.
type limitError struct {
	cause string // one of RefusalCauses
	text  string
}

func (e *limitError) Error() string { return e.text }

// tally is a quota with the name of its configuration keys.
type tally struct {
	*quota.Quota
	what    string // the counted things, plural; the keys are grpc.max_WHAT and so on
	most    int
	perPeer int
}

func newTally(what string, most, perPeer int) *tally {
	return &tally{quota.New(most, perPeer), what, most, perPeer}
}

// enter counts one more for the peer, or returns the limit that it would
// exceed. Each enter that succeeds needs one Leave.
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
