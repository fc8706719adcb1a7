package labapi

import (
	"net/netip"

	"github.com/sessiond/sessiond/internal/netlab"
)

// Address is where a host takes orders: its own loopback, which only programs
// in its network namespace can reach.
const Address = "127.0.0.1:8080"

// A Probe is an order to a subscriber to reach a host of the internet.
type Probe struct {
	Network      string         `json:"network"` // "tcp4", "udp4"; not for pings and flows
	From         netip.AddrPort `json:"from"`    // port 0: any; for pings the echo id
	To           netip.AddrPort `json:"to"`      // for pings the port is ignored
	Milliseconds int            `json:"milliseconds"`
}

// An Answer is the subscriber's address as seen by the other side.
type Answer struct {
	Seen netip.AddrPort `json:"seen"`
}

// A Pong is the payload of the answered ping.
type Pong struct {
	Payload string `json:"payload"`
}

// A Flow is one end of a long-lived TCP flow. Ends are numbered from 1 in the
// order in which they began at their host.
type Flow struct {
	ID       int            `json:"id"`
	Local    netip.AddrPort `json:"local"`
	Remote   netip.AddrPort `json:"remote"`
	Received uint64         `json:"received"` // highest number that arrived
}

// Sent is the number that was sent on a flow.
type Sent struct {
	Number uint64 `json:"number"`
}

// Seen holds all clients that reached an internet host.
type Seen struct {
	Echo  []netlab.Sighting    `json:"echo"`
	Pings []netlab.EchoRequest `json:"pings"`
}

// A Datagram is an unsolicited datagram for an internet host to send.
type Datagram struct {
	From    netip.AddrPort `json:"from"`
	To      netip.AddrPort `json:"to"`
	Payload string         `json:"payload"`
}

// An Account is an order to a BNG to send an accounting request.
type Account struct {
	Status         string     `json:"status"` // start, interim, stop, on, off
	User           string     `json:"user"`
	Session        string     `json:"session"`
	Calling        string     `json:"calling"`
	Address        netip.Addr `json:"address"` // Framed-IP-Address
	SessionSeconds int        `json:"session_seconds"`
	NAS            string     `json:"nas"` // instead of the BNG's own name
}

// Reported is the time until the acknowledgments, and how many servers sent one.
type Reported struct {
	Milliseconds float64 `json:"milliseconds"`
	Acknowledged int     `json:"acknowledged"`
}
