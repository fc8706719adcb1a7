package subscriberdb

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
)

// Recent returns which records came and went, of what a group's feed tells since a
// time by Redis's clock: the Created and Deleted changes, the oldest first.
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
