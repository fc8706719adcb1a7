package subscriberdb

import (
	"context"
	"fmt"

	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
)

// valueStore is the live settings, and of each group its marker, its owner and what it is
// served as.
type valueStore struct{ *shared }

// Settings returns the live settings, empty if none were ever written.
func (v *valueStore) Settings(ctx context.Context) (map[string]string, error) {
	settings, err := v.client.HGetAll(ctx, codec.SettingsKey).Result()
	if err != nil {
		return nil, fmt.Errorf("read settings: %w", err)
	}
	return settings, nil
}

// InitSettings writes the settings that are not there yet.
func (v *valueStore) InitSettings(ctx context.Context, first map[string]string) error {
	pipe := v.client.Pipeline()
	for name, value := range first {
		pipe.HSetNX(ctx, codec.SettingsKey, name, value)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("write first settings: %w", err)
	}
	return nil
}

// SetSettings writes the given settings together and leaves the others.
func (v *valueStore) SetSettings(ctx context.Context, settings map[string]string) error {
	if len(settings) == 0 {
		return nil
	}
	if err := v.client.HSet(ctx, codec.SettingsKey, settings).Err(); err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	return nil
}
