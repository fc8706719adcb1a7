package wire

import (
	"encoding/binary"

	"layeh.com/radius"
	"layeh.com/radius/rfc2865"
)

// ReplyLen returns the length of the reply to a request with these attributes.
func (a *Attributes) ReplyLen() int { return HeaderLen + a.proxyStates }

// AppendReply appends the Accounting-Response to p, without its authenticator. With the
// length [Attributes.ReplyLen] it has every Proxy-State of the request in order (RFC 2866
// section 2.1), with HeaderLen none; a reply has nothing else.
func AppendReply(b []byte, p Packet, length int) Packet {
	b = append(b, byte(radius.CodeAccountingResponse), p.Identifier())
	b = binary.BigEndian.AppendUint16(b, uint16(length))
	b = append(b, zeros[:]...)
	if length == HeaderLen {
		return b
	}
	for rest := p.attributes(); len(rest) > 0; rest = rest[rest[1]:] {
		if radius.Type(rest[0]) == rfc2865.ProxyState_Type {
			b = append(b, rest[:rest[1]]...)
		}
	}
	return b
}
