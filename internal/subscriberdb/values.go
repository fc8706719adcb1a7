package subscriberdb

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
)

// valueStore reads and writes the live settings, and each group's marker, owner and served
// configuration.
type valueStore struct{ *shared }

// Settings returns the live settings, empty if none were ever written.
func (v *valueStore) Settings(ctx context.Context) (map[string]string, error) {
	settings, err := v.client.HGetAll(ctx, codec.SettingsKey).Result()
	if err != nil {
		return nil, fmt.Errorf("read settings: %w", err)
	}
	return settings, nil
}

// InitSettings writes the settings that do not exist yet.
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

// SetSettings writes the given settings in one command and leaves the others.
func (v *valueStore) SetSettings(ctx context.Context, settings map[string]string) error {
	if len(settings) == 0 {
		return nil
	}
	if err := v.client.HSet(ctx, codec.SettingsKey, settings).Err(); err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	return nil
}

// Marker proves that a group's data are complete. A Redis that lost its data, or another
// Redis, has no marker or another one (I6).
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
	if !ok { // it proves nothing, and blocks a new one
		return Marker{}, false, v.discardText(ctx, group, codec.MarkerKey(group), text)
	}
	return m, true, nil
}

// SetMarker sets the marker of a group that has none. It keeps an existing marker of any
// daemon.
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

// noKey is the answer of PTTL for a missing key.
const noKey = time.Duration(-2)

// Owner returns the holder of the lease of a group's NAT, "" for none, and the remaining
// time of the lease; negative: no end.
func (v *valueStore) Owner(ctx context.Context, group string) (line string, left time.Duration, err error) {
	pipe := v.client.Pipeline()
	owner, ttl := pipe.Get(ctx, codec.OwnerKey(group)), pipe.PTTL(ctx, codec.OwnerKey(group))
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return "", 0, fmt.Errorf("read owner of group %q: %w", group, err)
	}
	if ttl.Val() == noKey {
		return "", 0, nil // it expired between the two commands
	}
	return owner.Val(), ttl.Val(), nil
}

// SetOwner makes now the owner of a group's NAT for ttl, if the present owner is was, and
// reports whether it did. "" means no owner.
func (v *valueStore) SetOwner(ctx context.Context, group, was, now string, ttl time.Duration) (bool, error) {
	call := redisconn.NewCall(ctx, ownerScript, []string{codec.OwnerKey(group)}, was, now, ttl.Milliseconds())
	if err := v.client.Exchange(ctx, []redis.Cmder{call}); err != nil {
		return false, fmt.Errorf("write owner of group %q: %w", group, err)
	}
	done, err := call.Int()
	return done == 1, err
}

// ownerScript changes the owner of a lease, if it still is the owner that the caller saw.
//
// KEYS: 1 owner. ARGV: 1 the owner seen, "" for none, 2 the new one, "" for none,
// 3 its time to live in milliseconds. Returns 1 when it is done, 0 when there is
// another owner.
var ownerScript = redis.NewScript(`
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1]) -- first, for a Redis that is full (see scripts.go)
if ARGV[2] ~= '' then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
return 1
`)
