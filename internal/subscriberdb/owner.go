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

// noKey is what PTTL says of a key that is not there.
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

// ownerScript changes who has a lease, if it is whom the caller saw.
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
