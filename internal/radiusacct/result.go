package radiusacct

import "github.com/sessiond/sessiond/internal/radiusacct/wire"

// What became of a request, as handed to [Observer.Request]. Each stands for
// one counter of RFC 4671 section 7; ok, no_record and duplicate are answered.
const (
	ResultOK               = "ok"                // recorded and answered (Responses)
	ResultNoRecord         = "no_record"         // answered and not recorded: nothing in it is to be (NoRecords)
	ResultDuplicate        = "duplicate"         // answered from the cache (DupRequests and Responses)
	ResultInProgress       = "in_progress"       // duplicate of a request that is being recorded (DupRequests)
	ResultUnknownClient    = "unknown_client"    // source address belongs to no client (InvalidRequests)
	ResultBadAuthenticator = "bad_authenticator" // Request or Message-Authenticator wrong or missing (BadAuthenticators)
	ResultMalformed        = "malformed"         // lengths wrong, or a mandatory attribute missing (MalformedRequests)
	ResultUnknownType      = "unknown_type"      // packet code is no business of this port (UnknownTypes)
	ResultDropped          = "dropped"           // queue or cache full, or replaced by its sender (PacketsDropped)
	ResultStoreFailed      = "store_failed"      // the Recorder refused; the NAS will retransmit (PacketsDropped)
)

// Kinds of request, as handed to [Observer.Request]. Requests that are refused
// before their attributes are read are TypeUnread.
const (
	TypeStart         = "start"
	TypeInterim       = "interim"
	TypeStop          = "stop"
	TypeAccountingOn  = "accounting_on"
	TypeAccountingOff = "accounting_off"
	TypeStatusServer  = "status_server"
	TypeOther         = "other" // an Acct-Status-Type without effect on who is online, or none
	TypeUnread        = "unread"
)

// A fault is the reason why a request is not answered.
type fault struct {
	result string
	reason string
	// fatal faults leave no trust in what follows on the same connection (RFC
	// 6613 section 2.6.4).
	fatal bool
}

func (f *fault) Error() string { return f.reason }

// faultOf is for what wire cannot read.
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

// routine reports whether the fault is everyday business under load, which
// deserves a counter but no line in the log.
func (f *fault) routine() bool {
	switch f.result {
	case ResultInProgress, ResultDropped, ResultStoreFailed:
		return true
	}
	return f == errStatusOff
}
