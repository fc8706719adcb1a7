package wire

// A Malformed is the reason why a packet cannot be read.
type Malformed struct {
	Reason string
	// Fatal is true if the following octets on the same connection are unreliable (RFC 6613
	// section 2.6.4).
	Fatal bool
}

func (m *Malformed) Error() string { return m.Reason }

var (
	errShortDatagram   = &Malformed{"datagram shorter than a RADIUS header", true}
	errLength          = &Malformed{"Length field below 20, above 4096 or beyond the datagram", true}
	errAttributeLength = &Malformed{"attribute length below 2 or beyond the packet", true}
	errValueSize       = &Malformed{"attribute value of the wrong size for its type", false}
	errRepeated        = &Malformed{"attribute repeated that may occur once", false}
	errManyAddresses   = &Malformed{"more Framed-IP-Address than a session can have", false}
	errNoStatusType    = &Malformed{"no Acct-Status-Type", false}
	errNoSessionID     = &Malformed{"no Acct-Session-Id", false}
)
