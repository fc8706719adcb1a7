package subscriberdb

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
)

// announcedWithin is the number of newest feed entries that are searched for the end of a
// record without other traces.
const announcedWithin = 1000

// lastChanges returns the kind of the last change at each address within the newest
// entries.
func (f *changeFeed) lastChanges(ctx context.Context, group string) (map[netip.Addr]subscriber.ChangeKind, error) {
	entries, err := f.client.XRevRangeN(ctx, codec.FeedKey(group), "+", "-", announcedWithin).Result()
	if err != nil {
		return nil, err
	}
	last := make(map[netip.Addr]subscriber.ChangeKind)
	for i := range entries {
		for _, c := range parseEntry(group, &entries[i]) {
			if _, known := last[c.Record.Inside()]; !known {
				last[c.Record.Inside()] = c.Kind
			}
		}
	}
	return last, nil
}

// endsTold returns the reasons of the ends that the feed has for the records, behind their
// versions. It reads the feed backwards, as far as necessary.
func (f *changeFeed) endsTold(ctx context.Context, records []subscriber.Record) (map[subscriber.Key]subscriber.Reason, error) {
	byGroup := map[string]map[netip.Addr]string{}
	for i := range records {
		r := &records[i]
		if byGroup[r.Group] == nil {
			byGroup[r.Group] = map[netip.Addr]string{}
		}
		byGroup[r.Group][r.Inside] = r.Version
	}
	told := map[subscriber.Key]subscriber.Reason{}
	for group, versions := range byGroup {
		if err := f.searchEnds(ctx, group, versions, told); err != nil {
			return nil, err
		}
	}
	return told, nil
}

// searchEnds finds the last change of each address, and then deletes the address from
// versions: older entries cannot hold the record's end.
func (f *changeFeed) searchEnds(ctx context.Context, group string, versions map[netip.Addr]string, told map[subscriber.Key]subscriber.Reason) error {
	oldest := oldestOf(versions)
	for end := "+"; len(versions) > 0; {
		entries, err := f.client.XRevRangeN(ctx, codec.FeedKey(group), end, oldest, announcedWithin).Result()
		if err != nil {
			return err
		}
		for i := range entries {
			for _, c := range parseEntry(group, &entries[i]) {
				inside := c.Record.Inside()
				version, wanted := versions[inside]
				if !wanted {
					continue
				}
				delete(versions, inside)
				if c.Kind == subscriber.Deleted && c.ID.Compare(subscriber.ParseVersion(version)) > 0 {
					told[c.Record.Key()] = c.Reason
				}
			}
		}
		if len(entries) < announcedWithin {
			return nil
		}
		end = "(" + entries[len(entries)-1].ID
	}
	return nil
}

// oldestOf returns the oldest version as the identifier of a feed entry; "-", which
// precedes all entries, if one of the versions is empty.
func oldestOf(versions map[netip.Addr]string) string {
	var oldest subscriber.Version
	first := true
	for _, text := range versions {
		v := subscriber.ParseVersion(text)
		if v == (subscriber.Version{}) {
			return "-"
		}
		if first || v.Compare(oldest) < 0 {
			oldest, first = v, false
		}
	}
	return oldest.String()
}

// Recent returns the Created and Deleted changes in a group's feed since a time by Redis's
// clock, the oldest first.
func (f *changeFeed) Recent(ctx context.Context, group string, since time.Time) ([]subscriber.Change, error) {
	recent := codec.NewFeedParser(group, 0, nil)
	for start := strconv.FormatInt(max(0, since.UnixMilli()), 10); ; {
		entries, err := f.client.XRangeN(ctx, codec.FeedKey(group), start, "+", redisconn.ScanCount).Result()
		if err != nil {
			return nil, fmt.Errorf("recent changes in feed %q: %w", group, err)
		}
		for i := range entries {
			entry := feedEntry(&entries[i])
			if !entry.Updates() {
				recent.Parse(entry)
			}
			start = "(" + entry.ID
		}
		if len(entries) < redisconn.ScanCount {
			return recent.Changes, nil
		}
	}
}
