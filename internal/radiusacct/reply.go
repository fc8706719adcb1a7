package radiusacct

import (
	"encoding/binary"

	"layeh.com/radius"
	"layeh.com/radius/rfc2865"
)

// appendReply appends the Accounting-Response to p, still without its
// authenticator: every Proxy-State of the request in its order and nothing else
// (RFC 2866 section 2.1).
func appendReply(b []byte, p packet, proxyStates int) packet {
	length := headerLength + proxyStates
	b = append(b, byte(radius.CodeAccountingResponse), p.identifier())
	b = binary.BigEndian.AppendUint16(b, uint16(length))
	b = append(b, zeros[:]...)
	if proxyStates == 0 {
		return b
	}
	for rest := p.attributes(); len(rest) > 0; rest = rest[rest[1]:] {
		if radius.Type(rest[0]) == rfc2865.ProxyState_Type {
			b = append(b, rest[:rest[1]]...)
		}
	}
	return b
}
