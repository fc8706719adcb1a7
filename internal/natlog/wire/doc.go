// Package wire writes the log of a NAT (nat.Event) in the forms that collectors read. It is
// pure: events in, octets out.
//
// Reading order:
//
//	template.go the information elements of each kind of event, for IPFIX and NetFlow v9
//	ipfix.go    IPFIX messages (RFC 7011, RFC 8158)
//	netflow9.go NetFlow v9 packets (RFC 3954)
//	syslog.go   syslog messages (RFC 5424)
//	jsonline.go lines of JSON, which are the form of the spool too, and are read again
package wire
