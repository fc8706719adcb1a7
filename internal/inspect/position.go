package inspect

import (
	"hash/fnv"
	"slices"
	"strings"
	"unsafe"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// A Position is a place in the stream of events, behind which a watch can go on.
//
// Within one run of the daemon the number of the last event suffices. The events of
// another run are gone, but the changes of records among them are in the feeds.
type Position struct {
	Run   uint64         // the run of the daemon that numbered the event, drawn at its start
	Seq   uint64         // number of the last event before the place
	Feeds []FeedPosition // of the groups whose feed is followed, by name
}

// FeedPosition is how far the changes in one group's feed were events: all changes of the
// entries before Entry, and of that entry the first Changes, or all for 0.
type FeedPosition struct {
	Group   string
	Epoch   uint64 // checksum of the epoch marker of the database that has the feed
	Entry   subscriber.Version
	Changes int
}

// positionOctets is the memory of a FeedPosition. tokenOctets bounds its part of a resume token,
// in text, besides the group's name: checksum, entry, number and lengths, in base64.
const (
	positionOctets = int(unsafe.Sizeof(FeedPosition{}))
	tokenOctets    = 48
)

// EpochSum returns the checksum of an epoch marker, for FeedPosition.
func EpochSum(marker string) uint64 {
	sum := fnv.New64a()
	_, _ = sum.Write([]byte(marker)) // cannot fail
	return sum.Sum64()
}

// FeedOf returns the position in one group's feed.
func (p *Position) FeedOf(group string) (FeedPosition, bool) {
	i, ok := slices.BinarySearchFunc(p.Feeds, group, byGroup)
	if !ok {
		return FeedPosition{}, false
	}
	return p.Feeds[i], true
}

func byGroup(f FeedPosition, group string) int { return strings.Compare(f.Group, group) }

// FeedPositions are the positions in all feeds at one event. The events between two reads of a
// feed differ in the position of its group alone, so they share the others.
type FeedPositions struct {
	Shared []FeedPosition // by name; never changed
	Own    FeedPosition   // replaces the shared one of its group; none without an Entry
}

// tokenOctets estimates the memory of a resume token with the positions.
func (f *FeedPositions) tokenOctets() int {
	n := 0
	for i := range f.Shared {
		n += tokenOctets + 4*len(f.Shared[i].Group)/3
	}
	return n
}

// shares reports whether the positions share their list with others.
func (f *FeedPositions) shares(o *FeedPositions) bool {
	return len(f.Shared) == len(o.Shared) && unsafe.SliceData(f.Shared) == unsafe.SliceData(o.Shared)
}

// List returns the positions, by name.
func (f *FeedPositions) List() []FeedPosition {
	i, ok := slices.BinarySearchFunc(f.Shared, f.Own.Group, byGroup)
	if !ok || f.Own.Entry == (subscriber.Version{}) {
		return f.Shared
	}
	list := slices.Clone(f.Shared)
	list[i] = f.Own
	return list
}
