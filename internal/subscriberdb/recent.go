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
	var recent []subscriber.Change
	for start := strconv.FormatInt(max(0, since.UnixMilli()), 10); ; {
		entries, err := db.client.XRangeN(ctx, feedKey(group), start, "+", scanCount).Result()
		if err != nil {
			return nil, fmt.Errorf("recent changes in feed %q: %w", group, err)
		}
		for _, entry := range entries {
			if kind := text(entry, "kind"); kind != kindRefreshed && kind != kindNames[subscriber.Updated] {
				recent = appendChanges(recent, group, entry)
			}
			start = "(" + entry.ID
		}
		if len(entries) < scanCount {
			return recent, nil
		}
	}
}
