package codec

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// kindRestart is the kind of an entry that marks the position of a NAS restart in the order
// of the feed. It holds no change of a record.
const kindRestart = "nas_restart"

// Names of the kinds of feed entries with one full record.
var (
	kindNames = [...]string{subscriber.Created: "created", subscriber.Updated: "updated", subscriber.Deleted: "deleted"}
	kinds     = map[string]subscriber.ChangeKind{
		"created": subscriber.Created, "updated": subscriber.Updated, "deleted": subscriber.Deleted,
	}
)

// KindName returns the kind of a feed entry with one full record.
func KindName(kind subscriber.ChangeKind) string { return kindNames[kind] }

// FeedEntry is one entry of a group's feed: its identifier, and its fields in the form of
// the Redis client.
type FeedEntry struct {
	ID     string
	Fields map[string]any
}

func (e FeedEntry) text(field string) string {
	s, _ := e.Fields[field].(string)
	return s
}

// Changes returns an upper bound of the number of changes in the entry.
func (e FeedEntry) Changes() int { return 1 + strings.Count(e.text("list"), "\n") }

// Updates reports whether all changes in the entry are updates.
func (e FeedEntry) Updates() bool {
	kind := e.text("kind")
	return kind == kindRefreshed || kind == kindNames[subscriber.Updated]
}

// FeedParser converts the entries of a group's feed to changes.
type FeedParser struct {
	Changes []subscriber.Change // of the entries so far

	group  string
	packer subscriber.Packer
}

// NewFeedParser returns a parser with capacity for the given number of changes. It uses the
// memory of room as far as that suffices.
func NewFeedParser(group string, changes int, room []subscriber.Change) *FeedParser {
	return &FeedParser{group: group, Changes: slices.Grow(room[:0], changes)}
}

// Parse adds the changes of an entry; a restart of a NAS adds none. It reports whether
// sessiond could have written the entry.
func (p *FeedParser) Parse(e FeedEntry) (usable bool) {
	if lines, ok := e.Fields["list"].(string); ok {
		return p.parseLines(e, lines)
	}
	c := subscriber.Change{ID: subscriber.ParseVersion(e.ID), Kind: kinds[e.text("kind")]}
	inside, err := netip.ParseAddr(e.text("inside"))
	if err != nil || c.Kind == 0 {
		return e.text("kind") == kindRestart
	}
	c.Reason, _ = subscriber.ParseReason(e.text("reason"))
	cause, _ := strconv.ParseUint(e.text("cause"), 10, 32)
	c.Cause = uint32(cause)
	r := ParseRecordText(subscriber.Key{Group: p.group, Inside: inside}, e.text("record"))
	if c.Kind != subscriber.Deleted {
		r.Version, r.ExpiresAt = e.ID, entryExpiry(c.ID, e.text("ttl"))
	}
	c.Record = p.packer.Pack(&r)
	p.Changes = append(p.Changes, c)
	return true
}

// entryExpiry returns the expiry, by Redis's clock, of a record that was written with the
// entry.
func entryExpiry(id subscriber.Version, ttl string) time.Time {
	ms, err := strconv.ParseInt(ttl, 10, 64)
	if err != nil || ms == 0 || id == (subscriber.Version{}) {
		return time.Time{}
	}
	return time.UnixMilli(id.Time().UnixMilli() + ms)
}

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

// parseRefreshed parses the line of one refreshed record without its address: event time,
// octets in and out.
func parseRefreshed(key subscriber.Key, text string) (subscriber.Record, bool) {
	r := subscriber.Record{Key: key}
	at, rest, _ := strings.Cut(text, " ")
	in, out, ok := strings.Cut(rest, " ")
	if !ok {
		return r, false
	}
	var errIn, errOut error
	r.UpdatedAt = parseTime(at)
	r.InputOctets, errIn = strconv.ParseUint(in, 10, 64)
	r.OutputOctets, errOut = strconv.ParseUint(out, 10, 64)
	return r, errIn == nil && errOut == nil
}
