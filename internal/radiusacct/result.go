package radiusacct

// What became of a request, as handed to [Observer.Request]. Each stands for
// one counter of RFC 4671 section 7; only ok, no_record and a duplicate whose
// reply is known are answered.
const (
	ResultOK               = "ok"                // recorded and answered (Responses)
	ResultNoRecord         = "no_record"         // answered without a record: nothing in it is worth one (NoRecords)
	ResultDuplicate        = "duplicate"         // answered from the cache, or still in progress (DupRequests)
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
}

func (f *fault) Error() string { return f.reason }

var (
	errShortDatagram      = &fault{ResultMalformed, "datagram shorter than a RADIUS header"}
	errLength             = &fault{ResultMalformed, "Length field below 20, above 4096 or beyond the datagram"}
	errAttributeLength    = &fault{ResultMalformed, "attribute length below 2 or beyond the packet"}
	errValueSize          = &fault{ResultMalformed, "attribute value of the wrong size for its type"}
	errRepeated           = &fault{ResultMalformed, "attribute repeated that may occur once"}
	errNoStatusType       = &fault{ResultMalformed, "no Acct-Status-Type"}
	errNoSessionID        = &fault{ResultMalformed, "no Acct-Session-Id"}
	errUnknownCode        = &fault{ResultUnknownType, "packet code is not served on an accounting port"}
	errAuthenticator      = &fault{ResultBadAuthenticator, "Request Authenticator does not match the secret"}
	errMessageAuth        = &fault{ResultBadAuthenticator, "Message-Authenticator does not match the secret"}
	errMessageAuthMissing = &fault{ResultBadAuthenticator, "Message-Authenticator missing"}
	errInProgress         = &fault{ResultDuplicate, "duplicate of a request in progress"}
	errQueueFull          = &fault{ResultDropped, "too many requests of this client are waiting"}
	errCacheFull          = &fault{ResultDropped, "too many requests of this client are in progress"}
)

// routine reports whether the fault is everyday business under load, which
// deserves a counter but no line in the log.
func (f *fault) routine() bool {
	return f.result == ResultDuplicate || f.result == ResultDropped
}
