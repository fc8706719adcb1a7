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
