package radiusacct

import "github.com/sessiond/sessiond/internal/radiusacct/wire"

// Results of a request, for [Observer.Request]. Each corresponds to one counter of RFC 4671
// section 7; ok, no_record and duplicate are answered.
const (
	ResultOK               = "ok"                // recorded and answered (Responses)
	ResultNoRecord         = "no_record"         // answered and not recorded: it has nothing to record (NoRecords)
	ResultDuplicate        = "duplicate"         // answered from the cache (DupRequests and Responses)
	ResultInProgress       = "in_progress"       // duplicate of a request that is being recorded (DupRequests)
	ResultUnknownClient    = "unknown_client"    // source address belongs to no client (InvalidRequests)
	ResultBadAuthenticator = "bad_authenticator" // Request or Message-Authenticator wrong or missing (BadAuthenticators)
	ResultMalformed        = "malformed"         // lengths wrong, or a mandatory attribute missing (MalformedRequests)
	ResultUnknownType      = "unknown_type"      // packet code is not served on this port (UnknownTypes)
	ResultDropped          = "dropped"           // queue or cache full, or replaced by its sender (PacketsDropped)
	ResultStoreFailed      = "store_failed"      // the Recorder refused; the NAS will retransmit (PacketsDropped)
)

// Kinds of request, for [Observer.Request]. TypeUnread is a request that was refused before
// its attributes were read.
const (
	TypeStart         = "start"
	TypeInterim       = "interim"
	TypeStop          = "stop"
	TypeAccountingOn  = "accounting_on"
	TypeAccountingOff = "accounting_off"
	TypeStatusServer  = "status_server"
	TypeOther         = "other" // an Acct-Status-Type without effect on sessions, or none
	TypeUnread        = "unread"
)

// A fault is the reason why a request is not answered.
type fault struct {
	result string
	reason string
	// A fatal fault makes the following octets of the connection unreliable (RFC 6613
	// section 2.6.4).
	fatal bool
}

func (f *fault) Error() string { return f.reason }

// faultOf returns the fault of a packet that wire cannot read.
func faultOf(m *wire.Malformed) *fault { return &fault{ResultMalformed, m.Reason, m.Fatal} }

var (
	errUnknownCode        = &fault{ResultUnknownType, "packet code is not served on an accounting port", false}
	errStatusOff          = &fault{ResultUnknownType, "Status-Server is switched off", false}
	errAuthenticator      = &fault{ResultBadAuthenticator, "Request Authenticator does not match the secret", true}
	errMessageAuth        = &fault{ResultBadAuthenticator, "Message-Authenticator does not match the secret", true}
	errMessageAuthMissing = &fault{ResultBadAuthenticator, "Message-Authenticator missing", false}
	errInProgress         = &fault{ResultInProgress, "duplicate of a request in progress", false}
	errCacheFull          = &fault{ResultDropped, "too many requests of this client are in progress", false}
	errStatusRate         = &fault{ResultDropped, "too many Status-Server of this client", false}
	errUnhealthy          = &fault{ResultStoreFailed, "Status-Server while accounting cannot be recorded", false}
)

// routine reports whether the fault is usual under load, so that it is counted but not
// logged.
func (f *fault) routine() bool {
	switch f.result {
	case ResultInProgress, ResultDropped, ResultStoreFailed:
		return true
	}
	return f == errStatusOff
}
