package codec

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// kindRestart stands in the feed for its place in the order, and is no change of a record.
const kindRestart = "nas_restart"

// Names of the kinds of feed entries that tell of one record in full.
var (
	kindNames = [...]string{subscriber.Created: "created", subscriber.Updated: "updated", subscriber.Deleted: "deleted"}
	kinds     = map[string]subscriber.ChangeKind{
		"created": subscriber.Created, "updated": subscriber.Updated, "deleted": subscriber.Deleted,
	}
)

// KindName is the kind of a feed entry that tells of one record in full.
func KindName(kind subscriber.ChangeKind) string { return kindNames[kind] }

// FeedEntry is one entry of a group's feed: its identifier, and its fields as the client
// gives them.
type FeedEntry struct {
	ID     string
	Fields map[string]any
}

func (e FeedEntry) text(field string) string {
	s, _ := e.Fields[field].(string)
	return s
}

// Changes is how many changes the entry tells of, at most.
func (e FeedEntry) Changes() int { return 1 + strings.Count(e.text("list"), "\n") }

// Updates reports whether the entry tells of records that go on, and of nothing else.
func (e FeedEntry) Updates() bool {
	kind := e.text("kind")
	return kind == kindRefreshed || kind == kindNames[subscriber.Updated]
}

// FeedParser makes changes of the entries of a group's feed.
type FeedParser struct {
	Changes []subscriber.Change // of the entries so far

	group  string
	packer subscriber.Packer
}

// NewFeedParser returns a parser with room for so many changes, which are put into the
// given room as far as it goes.
func NewFeedParser(group string, changes int, room []subscriber.Change) *FeedParser {
	return &FeedParser{group: group, Changes: slices.Grow(room[:0], changes)}
}

// Parse adds the changes of an entry; a restart of a NAS adds none. It reports whether the
// entry is one that sessiond writes.
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

// entryExpiry is when a record expires that was written with the entry, by
// Redis's clock.
func entryExpiry(id subscriber.Version, ttl string) time.Time {
	ms, err := strconv.ParseInt(ttl, 10, 64)
	if err != nil || ms == 0 || id == (subscriber.Version{}) {
		return time.Time{}
	}
	return time.UnixMilli(id.Time().UnixMilli() + ms)
}
