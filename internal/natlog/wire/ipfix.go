package wire

import (
	"encoding/binary"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
)

// ipfixTemplateSet is the identifier of a set of templates (RFC 7011 section 3.3.2).
const ipfixTemplateSet = 2

var ipfixTemplates, ipfixFixedTemplates = templates(variableName), templates(fixedName)

// IPFIX packs events into IPFIX messages (RFC 7011). The zero value with a Domain begins a
// transport session.
type IPFIX struct {
	Domain uint32 // the Observation Domain Identifier

	// FixedNames gives the user name 64 octets, with zeros behind it, for collectors that
	// cannot read a variable length.
	FixedNames bool

	sequence uint32 // number of data records in the session before the next message
}

// Pack implements Packer.
func (x *IPFIX) Pack(b []byte, events []nat.Event, limit int, templates bool, now time.Time) (message []byte, packed int) {
	begin, list := len(b), &ipfixTemplates
	if x.FixedNames {
		list = &ipfixFixedTemplates
	}
	b = binary.BigEndian.AppendUint16(b, 10)
	b = append(b, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(now.Unix()))
	b = binary.BigEndian.AppendUint32(b, x.sequence)
	b = binary.BigEndian.AppendUint32(b, x.Domain)
	if templates {
		b = appendTemplates(b, ipfixTemplateSet, list)
	}
	b, packed = appendSets(b, list, events, begin+limit, 1)
	binary.BigEndian.PutUint16(b[begin+2:], uint16(len(b)-begin))
	x.sequence += uint32(packed)
	return b, packed
}
