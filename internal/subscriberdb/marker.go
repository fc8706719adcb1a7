package subscriberdb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// Marker proves that what stands in a group is all that sessiond wrote. A Redis
// that lost its data, or is the wrong one, lost the marker too (I6).
type Marker struct {
	Epoch     string    `json:"epoch"` // of its own for each time the group was begun
	CreatedAt time.Time `json:"created_at"`
	Node      string    `json:"node"` // daemon that set it
}

// Marker returns the marker of a group, and false if there is none.
func (db *DB) Marker(ctx context.Context, group string) (Marker, bool, error) {
	var m Marker
	text, err := db.client.Get(ctx, markerKey(group)).Bytes()
	if errors.Is(err, redis.Nil) {
		return m, false, nil
	}
	if err != nil {
		return m, false, fmt.Errorf("read marker of group %q: %w", group, err)
	}
	if json.Unmarshal(text, &m) != nil || m.Epoch == "" { // it proves nothing, and is in the way of the next
		return Marker{}, false, db.discardText(ctx, group, markerKey(group), text)
	}
	return m, true, nil
}

// SetMarker sets the marker of a group that has none. A marker that stands is
// left alone, whoever set it.
func (db *DB) SetMarker(ctx context.Context, group string, m Marker) error {
	text, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("write marker: %w", err)
	}
	if err := db.client.SetNX(ctx, markerKey(group), text, 0).Err(); err != nil {
		return fmt.Errorf("write marker of group %q: %w", group, err)
	}
	return nil
}
