package rig

import (
	"context"
	"net"
	"net/netip"
	"strings"
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
// for the answer. Local with port 0, or empty, gets a port that was not used in
// the last minute, so the server takes no request for a repetition of an earlier
// one.
func SendTo(ctx context.Context, server, local string, request acctclient.Request) error {
	for {
		c, err := acctclient.Dial(ctx, server, local, acctclient.Options{Secret: []byte(Secret)})
		if err != nil {
			return err
		}
		defer c.Close() // not at once: the kernel shall choose another port
		if isNew(c.LocalAddr()) || !kernelChooses(local) {
			return c.Account(ctx, request)
		}
	}
}

func kernelChooses(local string) bool { return local == "" || strings.HasSuffix(local, ":0") }

// lately are the source addresses of requests, by net.Addr.String, each with the time of its
// last one. The kernel may choose a port that was closed a moment ago; the same octets from
// there would be answered from the server's memory, which lasts for 30 s at most.
var lately sync.Map

// isNew notes that an address is used now, and reports whether it was not in the last minute.
func isNew(a net.Addr) bool {
	now := time.Now()
	before, used := lately.Swap(a.String(), now)
	return !used || now.Sub(before.(time.Time)) > time.Minute
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
