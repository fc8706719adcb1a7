package codec

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// Names of the kinds of feed entries with several records in short form, a line each:
//
//	began      <inside> <the record's fields as words>
//	refreshed  <inside> <updated_at> <input_octets> <output_octets>
//	stopped    <inside> <Acct-Terminate-Cause> <updated_at> <input_octets> <output_octets>
//
// The field reason of a stopped entry is the reason of the ends, absent for Acct-Stops;
// earlier versions, which do not know the field, take them for Acct-Stops. A reader has the
// other fields of a record from earlier entries.
const (
	kindBegan     = "began"
	kindRefreshed = "refreshed"
	kindStopped   = "stopped"
)

// AppendEnd appends the line of a stopped record, without its address.
func AppendEnd(text []byte, e *subscriber.Ending) []byte {
	text = append(strconv.AppendUint(text, uint64(e.Cause), 10), ' ')
	text = append(appendTimeOrDash(text, e.Record.UpdatedAt), ' ')
	text = append(strconv.AppendUint(text, e.Record.InputOctets, 10), ' ')
	return strconv.AppendUint(text, e.Record.OutputOctets, 10)
}

// parseLines parses an entry with several records, and reports whether it could parse all
// lines.
func (p *FeedParser) parseLines(e FeedEntry, lines string) (usable bool) {
	usable = true
	kind, id := e.text("kind"), subscriber.ParseVersion(e.ID)
	expires := entryExpiry(id, e.text("ttl"))
	why, _ := subscriber.ParseReason(e.text("reason"))
	for line := range strings.SplitSeq(lines, "\n") {
		c := subscriber.Change{ID: id}
		r, ok := parseLine(&c, p.group, kind, line)
		if !ok {
			usable = false
			continue
		}
		if c.Kind == subscriber.Deleted && why != subscriber.ReasonNone {
			c.Reason = why
		}
		r.Version, r.ExpiresAt = e.ID, expires
		c.Record = p.packer.Pack(&r)
		p.Changes = append(p.Changes, c)
	}
	return usable
}

// parseLine parses the line of one record: its change, and the record.
func parseLine(c *subscriber.Change, group, kind, line string) (r subscriber.Record, ok bool) {
	address, rest, _ := strings.Cut(line, " ")
	inside, err := netip.ParseAddr(address)
	if err != nil {
		return r, false
	}
	key := subscriber.Key{Group: group, Inside: inside}
	switch kind {
	case kindBegan:
		c.Kind = subscriber.Created
		return ParseRecordText(key, rest), true
	case kindStopped:
		c.Kind, c.Reason = subscriber.Deleted, subscriber.ReasonStop
		cause, last, _ := strings.Cut(rest, " ")
		number, err := strconv.ParseUint(cause, 10, 32)
		if err != nil {
			return r, false
		}
		c.Cause, rest = uint32(number), last
	case kindRefreshed:
		c.Kind = subscriber.Updated
	default:
		return r, false
	}
	c.Partial = true
	return parseRefreshed(key, rest)
}
