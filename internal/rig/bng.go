package rig

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"layeh.com/radius/rfc2866"

	"github.com/sessiond/sessiond/internal/radiusacct/acctclient"
)

// NAS is the name of the rig's BNG.
const NAS = "bng-1"

// A Session is one subscriber session in the BNG's reports.
type Session struct {
	ID     string
	User   string
	Inside netip.Addr
}

// Report makes the BNG send one accounting request for the session, with the
// present as event time, and waits for the answer.
func (r *Rig) Report(ctx context.Context, status rfc2866.AcctStatusType, s Session) error {
	return r.Send(ctx, acctclient.Request{
		Status: status, SessionID: s.ID, UserName: s.User, FramedAddress: s.Inside, NASIdentifier: NAS,
		EventTime: time.Now(),
	})
}

// Send makes the BNG send a request and waits for the answer.
func (r *Rig) Send(ctx context.Context, request acctclient.Request) error {
	return SendTo(ctx, r.Daemon.RADIUS, "", request)
}

// SendFrom makes a BNG or proxy with another source address send a request.
func (r *Rig) SendFrom(ctx context.Context, source string, request acctclient.Request) error {
	return SendTo(ctx, r.Daemon.RADIUS, source+":0", request)
}

// SendTo sends a request to a server, "HOST:PORT", from "IP:PORT", and waits
// for the answer. A port that the kernel chooses is new, so the server takes no
// request for a repetition of an earlier one.
func SendTo(ctx context.Context, server, local string, request acctclient.Request) error {
	conn, err := dial(ctx, server, local)
	if err != nil {
		return err
	}
	c, err := acctclient.New(conn, acctclient.Options{Secret: []byte(Secret)})
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Account(ctx, request)
}

// lately are the source addresses of requests, by net.Addr.String, each with the time of its
// last one. The kernel may choose a port that was closed a moment ago; the same octets from
// there would be answered from the server's memory, which lasts for 30 s at most.
var lately sync.Map

// dial makes a socket whose source address was not used in the last minute, if the kernel
// chooses the port.
func dial(ctx context.Context, server, local string) (net.Conn, error) {
	var d net.Dialer
	if local != "" {
		addr, err := net.ResolveUDPAddr("udp", local)
		if err != nil {
			return nil, err
		}
		d.LocalAddr = addr
	}
	for {
		conn, err := d.DialContext(ctx, "udp", server)
		if err != nil {
			return nil, err
		}
		now := time.Now()
		before, used := lately.Swap(conn.LocalAddr().String(), now)
		if chosen, ok := d.LocalAddr.(*net.UDPAddr); !used || now.Sub(before.(time.Time)) > time.Minute || ok && chosen.Port != 0 {
			return conn, nil
		}
		defer conn.Close() // not at once: the kernel shall choose another one
	}
}

// Status makes the BNG send a Status-Server and waits for the answer.
func (r *Rig) Status(ctx context.Context) error {
	c, err := acctclient.Dial(ctx, r.Daemon.RADIUS, "", acctclient.Options{Secret: []byte(Secret)})
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Status(ctx)
}

// Online reports a Start and waits until the subscriber has its block.
func (r *Rig) Online(ctx context.Context, s Session) (Binding, error) {
	if err := r.Report(ctx, rfc2866.AcctStatusType_Value_Start, s); err != nil {
		return Binding{}, err
	}
	return r.AwaitState(ctx, s.Inside, "ACTIVE")
}

// Offline reports a Stop.
func (r *Rig) Offline(ctx context.Context, s Session) error {
	return r.Report(ctx, rfc2866.AcctStatusType_Value_Stop, s)
}
