package pcp

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/pcp/wire"
)

// Mappings keeps the mappings that clients ask for. Its methods are called from several goroutines.
type Mappings interface {
	// Client returns who has an inside address now, and whether it is online with an open gate. Of
	// an address of a group that is not online, only Group and Settings are set; of any other
	// address nothing is. It does no I/O.
	Client(inside netip.Addr) (Client, bool)
	// List returns the mappings of an inside address, those of the operator too. It does no I/O.
	List(inside netip.Addr) []Mapping
	// Map creates a mapping, or renews the one of the inside port. The mapping is durable, and in
	// force in the kernel, when Map returns. An inside port that the operator has mapped keeps that
	// mapping, which is returned. Errors: ErrQuota, ErrNoPort, ErrNotAuthorized, ErrUnavailable,
	// ErrNotOnline.
	Map(ctx context.Context, r MapRequest) (Mapping, error)
	// Unmap deletes a mapping with its sessions. One that does not exist is no error. Errors:
	// ErrNotAuthorized, ErrUnavailable, ErrNotOnline.
	Unmap(ctx context.Context, r UnmapRequest) error
	// Flow finds the session of an inside endpoint with a remote one, in either direction.
	Flow(ctx context.Context, r FlowRequest) (f Flow, found bool, err error)
}

// Errors of Mappings.
var (
	ErrQuota         = errors.New("the client has as many mappings as it may have")
	ErrNoPort        = errors.New("the suggested port is not free, or none is") // the former with PreferFailure only
	ErrNotAuthorized = errors.New("the mapping has another nonce, or is the operator's")
	ErrUnavailable   = errors.New("mappings cannot be stored now")
	ErrNotOnline     = errors.New("the client is not online")
)

// A Client is the holder of an inside address.
type Client struct {
	Group    string
	Outside  netip.Addr     // of its binding
	Since    time.Time      // its epoch began: with its binding, the last loss of its mappings, or a change of Outside
	Until    time.Time      // its record expires, unless accounting comes; zero for never
	Settings *GroupSettings // of its group; does not change, another one takes its place
}

// GroupSettings are the rules of one group.
type GroupSettings struct {
	Enabled    bool           // without it, requests are refused (NOT_AUTHORIZED)
	NATPMP     bool           // NAT-PMP (RFC 6886) is spoken too
	Map        bool           // MAP, and mappings of NAT-PMP
	Peer       bool           // PEER
	ThirdParty []netip.Prefix // clients that may ask for subscribers of the group (THIRD_PARTY); none for nobody
	// LenientNonce lets another nonce renew and delete a mapping: many clients drew a new one for
	// every request. RFC 6887 section 11.3 refuses that.
	LenientNonce bool
	MinLifetime  time.Duration // of a mapping, at least
	MaxLifetime  time.Duration // of a mapping, at most
	Mappings     int           // most mappings of a client
	Filters      int           // most filters of a mapping; 0 where FILTER is not supported
	Announce     int           // most announcements of one loss to one client; 0 for none
}

// A Mapping gives an inside port an outside one.
type Mapping struct {
	Inside   netip.AddrPort
	Outside  netip.AddrPort
	Protocol uint8 // 6 TCP, 17 UDP
	Nonce    wire.Nonce
	Expires  time.Time      // zero for never
	Filters  []wire.Filter  // remote endpoints that may send; none for all
	Peer     netip.AddrPort // the remote endpoint of PEER; zero of MAP
	Static   bool           // the operator's; no client changes it
}

// A MapRequest asks for a mapping, or for a longer life of one.
type MapRequest struct {
	Inside        netip.AddrPort
	Protocol      uint8
	Suggested     netip.AddrPort // outside; either part may be zero, and anything else
	PreferFailure bool           // ErrNoPort rather than another outside endpoint than the suggested one
	Lifetime      time.Duration  // within the bounds of the group; whole seconds
	Nonce         wire.Nonce
	CheckNonce    bool           // ErrNotAuthorized where the mapping has another nonce
	Filters       []wire.Filter  // all filters that the mapping has from now on
	Peer          netip.AddrPort // asked by PEER for this remote endpoint; zero for MAP
}

// An UnmapRequest asks for the end of a mapping.
type UnmapRequest struct {
	Inside   netip.AddrPort // with port 0, all mappings of the client and protocol that clients made
	Protocol uint8          // 0 with port 0: of all protocols
	Nonce    wire.Nonce
	// CheckNonce: ErrNotAuthorized where the mapping has another nonce; with port 0, where there
	// are mappings and none has it. Those with another nonce stay then.
	CheckNonce bool
}

// A FlowRequest names a session.
type FlowRequest struct {
	Inside   netip.AddrPort
	Protocol uint8
	Remote   netip.AddrPort
}

// A Flow is a session of the kernel.
type Flow struct {
	Outside netip.AddrPort
	Timeout time.Duration // until it ends, without further packets
}
