package wire

import (
	"encoding/binary"
	"hash/fnv"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/rawtext"
)

// natEvent values (RFC 8158 section 5, table 1).
const (
	natAddressesExhausted = 3
	natPortsExhausted     = 12
	natQuotaExceeded      = 13
	natBlockAllocated     = 16
	natBlockReleased      = 17
)

// perUserQuota is the natQuotaExceededEvent "maximum entries per user" (RFC 8158 section 5,
// table 2).
const perUserQuota = 3

// variable is the length of an information element that is as long as its value (RFC 7011
// section 3.2).
const variable = 65535

// element is an information element: its number in IANA's registry, the octets of its value,
// and how an event gives that.
type element struct {
	id, length uint16
	put        func(b []byte, e *nat.Event) []byte
}

// template describes the records of some kinds of events.
type template struct {
	id       uint16
	elements []element
}

var (
	observationTime = element{323, 8, func(b []byte, e *nat.Event) []byte {
		return binary.BigEndian.AppendUint64(b, uint64(e.At.UnixMilli()))
	}}
	natEvent     = element{230, 1, func(b []byte, e *nat.Event) []byte { return append(b, natEventOf(e.Kind)) }}
	inside       = element{8, 4, func(b []byte, e *nat.Event) []byte { return appendIPv4(b, e.Holder.Inside) }}
	outside      = element{225, 4, func(b []byte, e *nat.Event) []byte { return appendIPv4(b, e.Outside) }}
	firstPort    = element{361, 2, func(b []byte, e *nat.Event) []byte { return binary.BigEndian.AppendUint16(b, uint16(e.First)) }}
	lastPort     = element{362, 2, func(b []byte, e *nat.Event) []byte { return binary.BigEndian.AppendUint16(b, uint16(e.Last)) }}
	pool         = element{283, 4, func(b []byte, e *nat.Event) []byte { return binary.BigEndian.AppendUint32(b, PoolID(e.Group)) }}
	protocol     = element{4, 1, func(b []byte, _ *nat.Event) []byte { return append(b, 0) }} // a block has ports of each protocol
	quota        = element{466, 4, func(b []byte, _ *nat.Event) []byte { return binary.BigEndian.AppendUint32(b, perUserQuota) }}
	maxPerUser   = element{473, 4, func(b []byte, e *nat.Event) []byte { return binary.BigEndian.AppendUint32(b, uint32(e.Most)) }}
	variableName = element{371, variable, appendVariableName}
	fixedName    = element{371, fixedNameSize, appendFixedName}
)

// templates returns the templates, with an element for the user name. Their identifiers never
// change their meaning: a collector may have an older program's templates.
func templates(name element) [4]template {
	return [...]template{
		{256, []element{observationTime, natEvent, inside, outside, firstPort, lastPort, pool, name}},
		{257, []element{observationTime, natEvent, pool}},
		{258, []element{observationTime, natEvent, outside, protocol, inside}},
		{259, []element{observationTime, natEvent, quota, maxPerUser, inside, name}},
	}
}

// templateOf returns the place of a kind's template.
func templateOf(k nat.EventKind) int {
	switch k {
	case nat.AddressesExhausted:
		return 1
	case nat.PortsExhausted:
		return 2
	case nat.LimitReached:
		return 3
	}
	return 0
}

func natEventOf(k nat.EventKind) byte {
	switch k {
	case nat.Released:
		return natBlockReleased
	case nat.AddressesExhausted:
		return natAddressesExhausted
	case nat.PortsExhausted:
		return natPortsExhausted
	case nat.LimitReached:
		return natQuotaExceeded
	}
	return natBlockAllocated
}

// PoolID returns the natPoolID of a group: a hash of its name, so that it is the same on all
// nodes and after each change of the configuration.
func PoolID(group string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(group))
	return h.Sum32()
}

// appendIPv4 appends an IPv4 address, and 0.0.0.0 for any other.
func appendIPv4(b []byte, a netip.Addr) []byte {
	var octets [4]byte
	if a = a.Unmap(); a.Is4() {
		octets = a.As4()
	}
	return append(b, octets[:]...)
}

// Octets of a user name: a variable one together with the rest of its record fits into the
// smallest message.
const (
	variableNameSize = 254
	fixedNameSize    = 64
)

// appendVariableName appends a user name in the form of RFC 7011 section 7, in one octet of
// length.
func appendVariableName(b []byte, e *nat.Event) []byte {
	text := cutText(rawtext.Of(e.Holder.UserName), variableNameSize)
	return append(append(b, byte(len(text))), text...)
}

// appendFixedName appends a user name and zero octets behind it: NetFlow v9 has no variable
// length.
func appendFixedName(b []byte, e *nat.Event) []byte {
	text := cutText(rawtext.Of(e.Holder.UserName), fixedNameSize)
	b = append(b, text...)
	return append(b, make([]byte, fixedNameSize-len(text))...)
}

// cutText returns the begin of a text, of at most so many octets, without half a character and
// without half a "%HH".
func cutText(text string, most int) string {
	if len(text) <= most {
		return text
	}
	for most > 0 && !utf8.RuneStart(text[most]) {
		most--
	}
	text = text[:most]
	if i := strings.LastIndexByte(text, '%'); i >= 0 && i > len(text)-3 {
		text = text[:i]
	}
	return text
}

// appendRecord appends the record of an event.
func (t *template) appendRecord(b []byte, e *nat.Event) []byte {
	for i := range t.elements {
		b = t.elements[i].put(b, e)
	}
	return b
}

// appendTemplate appends the template record, which IPFIX (RFC 7011 section 3.4.1) and NetFlow
// v9 (RFC 3954 section 5.2) write alike.
func (t *template) appendTemplate(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, t.id)
	b = binary.BigEndian.AppendUint16(b, uint16(len(t.elements)))
	for i := range t.elements {
		b = binary.BigEndian.AppendUint16(b, t.elements[i].id)
		b = binary.BigEndian.AppendUint16(b, t.elements[i].length)
	}
	return b
}

// LeastMessage is the limit of octets that a message may have at least: one record with all
// templates fits.
const LeastMessage = 480

// A Packer packs events into the messages of one transport session.
type Packer interface {
	// Pack appends a message of at most limit octets, which is LeastMessage or more. It has
	// the templates, if they are wanted, and the first of the events, as many as fit. Their
	// number is returned, and is at least 1 unless there are none.
	Pack(b []byte, events []nat.Event, limit int, templates bool, now time.Time) (message []byte, packed int)
}

// appendSets appends sets of data records (RFC 7011 section 3.3.2) until the limit of octets, each
// padded to a multiple of octets, and returns the number of records.
func appendSets(b []byte, list *[4]template, events []nat.Event, limit, padding int) (sets []byte, packed int) {
	for packed < len(events) {
		begin := len(b)
		kind := templateOf(events[packed].Kind)
		b = binary.BigEndian.AppendUint16(b, list[kind].id)
		b = append(b, 0, 0)
		first := packed
		for ; packed < len(events) && templateOf(events[packed].Kind) == kind; packed++ {
			end := len(b)
			if b = list[kind].appendRecord(b, &events[packed]); pad(len(b)-begin, padding)+begin > limit {
				b = b[:end]
				break
			}
		}
		if packed == first {
			return b[:begin], packed
		}
		b = append(b, make([]byte, pad(len(b)-begin, padding)-(len(b)-begin))...)
		binary.BigEndian.PutUint16(b[begin+2:], uint16(len(b)-begin))
	}
	return b, packed
}

// pad rounds n up to a multiple.
func pad(n, multiple int) int { return (n + multiple - 1) / multiple * multiple }

// appendTemplates appends a set of all templates.
func appendTemplates(b []byte, set uint16, list *[4]template) []byte {
	begin := len(b)
	b = binary.BigEndian.AppendUint16(b, set)
	b = append(b, 0, 0)
	for i := range list {
		b = list[i].appendTemplate(b)
	}
	binary.BigEndian.PutUint16(b[begin+2:], uint16(len(b)-begin))
	return b
}
