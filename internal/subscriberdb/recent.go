package subscriberdb

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// Recent returns which records came and went, of what a group's feed tells since a
// time by Redis's clock: the Created and Deleted changes, the oldest first.
func (db *DB) Recent(ctx context.Context, group string, since time.Time) ([]subscriber.Change, error) {
	recent := feedParser{group: group}
	for start := strconv.FormatInt(max(0, since.UnixMilli()), 10); ; {
		entries, err := db.client.XRangeN(ctx, feedKey(group), start, "+", scanCount).Result()
		if err != nil {
			return nil, fmt.Errorf("recent changes in feed %q: %w", group, err)
		}
		for i := range entries {
			entry := &entries[i]
			if kind := text(entry, "kind"); kind != kindRefreshed && kind != kindNames[subscriber.Updated] {
				recent.entry(entry)
			}
			start = "(" + entry.ID
		}
		if len(entries) < scanCount {
			return recent.changes, nil
		}
	}
}
