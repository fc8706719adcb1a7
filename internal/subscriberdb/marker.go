package subscriberdb

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
)

// Marker proves that what stands in a group is all that sessiond wrote. A Redis
// that lost its data, or is the wrong one, lost the marker too (I6).
type Marker = codec.Marker

// Marker returns the marker of a group, and false if there is none.
func (v *valueStore) Marker(ctx context.Context, group string) (Marker, bool, error) {
	text, err := v.client.Get(ctx, codec.MarkerKey(group)).Bytes()
	if errors.Is(err, redis.Nil) {
		return Marker{}, false, nil
	}
	if err != nil {
		return Marker{}, false, fmt.Errorf("read marker of group %q: %w", group, err)
	}
	m, ok := codec.ParseMarker(text)
	if !ok { // it proves nothing, and is in the way of the next
		return Marker{}, false, v.discardText(ctx, group, codec.MarkerKey(group), text)
	}
	return m, true, nil
}

// SetMarker sets the marker of a group that has none. A marker that stands is
// left alone, whoever set it.
func (v *valueStore) SetMarker(ctx context.Context, group string, m Marker) error {
	text, err := codec.FormatMarker(m)
	if err != nil {
		return fmt.Errorf("write marker: %w", err)
	}
	if err := v.client.SetNX(ctx, codec.MarkerKey(group), text, 0).Err(); err != nil {
		return fmt.Errorf("write marker of group %q: %w", group, err)
	}
	return nil
}
