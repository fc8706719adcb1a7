package main

import (
	"fmt"
	"net/netip"
	"time"

	"layeh.com/radius/rfc2866"

	"github.com/sessiond/sessiond/internal/labapi"
	"github.com/sessiond/sessiond/internal/radiusacct/acctclient"
)

var statuses = map[string]rfc2866.AcctStatusType{
	"start":   rfc2866.AcctStatusType_Value_Start,
	"interim": rfc2866.AcctStatusType_Value_InterimUpdate,
	"stop":    rfc2866.AcctStatusType_Value_Stop,
	"on":      rfc2866.AcctStatusType_Value_AccountingOn,
	"off":     rfc2866.AcctStatusType_Value_AccountingOff,
}

// requestOf converts an order to the BNG with that name into a request.
func requestOf(a labapi.Account, nas string) (acctclient.Request, error) {
	status, ok := statuses[a.Status]
	if !ok {
		return acctclient.Request{}, fmt.Errorf("unknown status %q", a.Status)
	}
	if a.NAS != "" {
		nas = a.NAS
	}
	return acctclient.Request{
		Status:           status,
		SessionID:        a.Session,
		UserName:         a.User,
		CallingStationID: a.Calling,
		NASIdentifier:    nas,
		FramedAddress:    a.Address,
		SessionTime:      time.Duration(a.SessionSeconds) * time.Second,
		EventTime:        time.Now(),
	}, nil
}

// addressFlag is a netip.Addr as a command-line flag.
type addressFlag struct{ *netip.Addr }

func (f addressFlag) Set(s string) error {
	addr, err := netip.ParseAddr(s)
	*f.Addr = addr
	return err
}

func (f addressFlag) String() string {
	if f.Addr == nil || !f.Addr.IsValid() {
		return ""
	}
	return f.Addr.String()
}

func (f addressFlag) Type() string { return "address" }
