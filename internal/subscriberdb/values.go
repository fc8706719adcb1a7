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

// valueStore is the live settings, and of each group its marker, its owner and how it is
// served.
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

// Marker proves that a group's data are complete. A Redis that lost its data, or is the
// wrong one, lost the marker too (I6).
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

// noKey is the answer of PTTL for a key that is not there.
const noKey = time.Duration(-2)

// Owner returns who has the lease of a group's NAT, "" for nobody, and how long it
// lasts yet; negative: for ever.
func (v *valueStore) Owner(ctx context.Context, group string) (line string, left time.Duration, err error) {
	pipe := v.client.Pipeline()
	owner, ttl := pipe.Get(ctx, codec.OwnerKey(group)), pipe.PTTL(ctx, codec.OwnerKey(group))
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return "", 0, fmt.Errorf("read owner of group %q: %w", group, err)
	}
	if ttl.Val() == noKey {
		return "", 0, nil // it ran out between the two
	}
	return owner.Val(), ttl.Val(), nil
}

// SetOwner makes now the owner of a group's NAT for ttl, if the owner is was, and
// reports whether it was. "" is nobody.
func (v *valueStore) SetOwner(ctx context.Context, group, was, now string, ttl time.Duration) (bool, error) {
	call := redisconn.NewCall(ctx, ownerScript, []string{codec.OwnerKey(group)}, was, now, ttl.Milliseconds())
	if err := v.client.Exchange(ctx, []redis.Cmder{call}); err != nil {
		return false, fmt.Errorf("write owner of group %q: %w", group, err)
	}
	done, err := call.Int()
	return done == 1, err
}

// ownerScript changes the owner of a lease, if it is the one that the caller saw.
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
