package wire

import (
	"encoding/binary"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
)

// netflow9TemplateSet is the identifier of a FlowSet of templates (RFC 3954 section 5.2).
const netflow9TemplateSet = 0

var netflow9Templates = templates(fixedName)

// NetFlow9 packs events into NetFlow v9 packets (RFC 3954). The zero value with a Source and
// Began begins a session.
type NetFlow9 struct {
	Source   uint32    // the Source ID
	Began    time.Time // when the exporter began, for sysUpTime
	sequence uint32    // number of packets before the next one
}

// Pack implements Packer.
func (x *NetFlow9) Pack(b []byte, events []nat.Event, limit int, templates bool, now time.Time) (message []byte, packed int) {
	begin := len(b)
	b = binary.BigEndian.AppendUint16(b, 9)
	b = append(b, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(now.Sub(x.Began).Milliseconds()))
	b = binary.BigEndian.AppendUint32(b, uint32(now.Unix()))
	b = binary.BigEndian.AppendUint32(b, x.sequence)
	b = binary.BigEndian.AppendUint32(b, x.Source)
	records := 0
	if templates {
		b = appendTemplates(b, netflow9TemplateSet, &netflow9Templates)
		records = len(netflow9Templates)
	}
	b, packed = appendSets(b, &netflow9Templates, events, begin+limit, 4)
	binary.BigEndian.PutUint16(b[begin+2:], uint16(records+packed))
	x.sequence++
	return b, packed
}
