package subscriberdb

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
)

// Garbage is a kind of unusable data in Redis, named by its place. Garbage is left out,
// counted and logged, and blocks nothing else.
type Garbage = codec.Garbage

// GarbageKinds returns all kinds of garbage.
func GarbageKinds() []Garbage { return codec.GarbageKinds() }

// garbageReports counts and names unusable data.
type garbageReports struct {
	counted func(group string, kind Garbage)
	logs    throttles[Garbage]
	logger  *slog.Logger
	now     func() time.Time
}

// found counts and logs garbage.
func (r *garbageReports) found(group string, kind Garbage, where string) {
	r.counted(group, kind)
	if suppressed, ok := r.logs[kind].Allow(r.now()); ok {
		r.logger.Error("unusable data in Redis is left out", "group", group, "kind", string(kind), "key", where,
			"suppressed", suppressed, "alarm", "sessiond_database_garbage_total")
	}
}

// foundRecord counts and logs a record key that is not a hash.
func (r *garbageReports) foundRecord(key subscriber.Key) {
	r.found(key.Group, codec.GarbageRecord, codec.RecordKey(key.Group, key.Inside))
}

// keyTypesEvery is the interval between checks of the types of sessiond's own keys.
const keyTypesEvery = time.Second

// keyTypes checks the types of sessiond's own keys.
type keyTypes struct{ *shared }

// KeepKeyTypes deletes sessiond's own keys that another program replaced by a value of
// another type, until the context ends. Their data are lost already, and no command of
// sessiond works on the new value. The writers of the keys write them again, as after a
// loss. Errors are retried.
func (k *keyTypes) KeepKeyTypes(ctx context.Context) error {
	ticker := time.NewTicker(keyTypesEvery)
	defer ticker.Stop()
	for {
		if err := k.checkKeyTypes(ctx); err != nil && ctx.Err() == nil {
			k.logger.Debug("types of keys not looked at", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (k *keyTypes) checkKeyTypes(ctx context.Context) error {
	if err := k.checkKeyTypesOf(ctx, codec.Reserved, codec.SharedKeys()); err != nil {
		return err
	}
	groups := k.inForce()
	for i := range groups.groups {
		group := groups.groups[i].Name
		if err := k.checkKeyTypesOf(ctx, group, codec.OwnKeys(group)); err != nil {
			return err
		}
	}
	return nil
}

func (k *keyTypes) checkKeyTypesOf(ctx context.Context, group string, keys []codec.TypedKey) error {
	cmds := make([]redis.Cmder, len(keys))
	for i, key := range keys {
		cmds[i] = redis.NewStatusCmd(ctx, "type", key.Name)
	}
	if err := k.client.Exchange(ctx, cmds); err != nil {
		return fmt.Errorf("read types of keys: %w", err)
	}
	var found []string
	for i, key := range keys {
		if kind := cmds[i].(*redis.StatusCmd).Val(); kind == "none" || kind == key.Kind {
			continue
		}
		call := redisconn.NewCall(ctx, discardScript, []string{key.Name}, key.Kind)
		if err := k.client.Exchange(ctx, []redis.Cmder{call}); err != nil {
			return fmt.Errorf("delete %s: %w", key.Name, err)
		}
		found = append(found, key.Name)
	}
	if len(found) > 0 { // log each, because deletion leaves no trace; at most once a second
		k.counted(group, codec.GarbageKey)
		k.logger.Error("keys in Redis were of another type, and are deleted", "group", group, "keys", strings.Join(found, " "),
			"alarm", "sessiond_database_garbage_total")
	}
	return nil
}

// discardScript deletes a key that has not the type that it should have. The check is in
// the script because several daemons may call it, and a late call must not delete the new
// key.
//
// KEYS: 1 the key. ARGV: 1 its type. Returns 1 when it was deleted.
var discardScript = redis.NewScript(`
local kind = redis.call('TYPE', KEYS[1]).ok
if kind == 'none' or kind == ARGV[1] then return 0 end
return redis.call('UNLINK', KEYS[1])
`)

// discardText deletes a key whose text sessiond would not write, if it still has that text.
func (s *shared) discardText(ctx context.Context, group, key string, text []byte) error {
	s.found(group, codec.GarbageKey, key)
	call := redisconn.NewCall(ctx, discardTextScript, []string{key}, text)
	if err := s.client.Exchange(ctx, []redis.Cmder{call}); err != nil {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	return nil
}

// discardTextScript deletes a string if it still has the text.
//
// KEYS: 1 the key. ARGV: 1 its text. Returns 1 when it was deleted.
var discardTextScript = redis.NewScript(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('UNLINK', KEYS[1])
`)
