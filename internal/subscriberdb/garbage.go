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

// Garbage is data in Redis that sessiond does not write, by its place. It is left out,
// counted and named in the log, and holds up nothing else.
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

// found counts and names garbage.
func (r *garbageReports) found(group string, kind Garbage, where string) {
	r.counted(group, kind)
	if suppressed, ok := r.logs[kind].Allow(r.now()); ok {
		r.logger.Error("unusable data in Redis is left out", "group", group, "kind", string(kind), "key", where,
			"suppressed", suppressed, "alarm", "sessiond_database_garbage_total")
	}
}

// foundRecord counts the record at a key that is no hash.
func (r *garbageReports) foundRecord(key subscriber.Key) {
	r.found(key.Group, codec.GarbageRecord, codec.RecordKey(key.Group, key.Inside))
}

// keyTypesEvery is how often the types of sessiond's own keys are looked at.
const keyTypesEvery = time.Second

// keyTypes looks after the types of sessiond's own keys.
type keyTypes struct{ *shared }

// KeepKeyTypes deletes those of sessiond's own keys that somebody has made another type of, until
// the context ends: the data that stood there are lost, and no command of ours can use those of
// now. Their writer writes them again, as after a loss. Errors are tried again.
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
	if len(found) > 0 { // each is named, as nobody finds it any more: once a second at most
		k.counted(group, codec.GarbageKey)
		k.logger.Error("keys in Redis were of another type, and are deleted", "group", group, "keys", strings.Join(found, " "),
			"alarm", "sessiond_database_garbage_total")
	}
	return nil
}

// discardScript deletes a key that is not of the type that it should be; of several who
// found it so, one may be late.
//
// KEYS: 1 the key. ARGV: 1 its type. Returns 1 when it was deleted.
var discardScript = redis.NewScript(`
local kind = redis.call('TYPE', KEYS[1]).ok
if kind == 'none' or kind == ARGV[1] then return 0 end
return redis.call('UNLINK', KEYS[1])
`)

// discardText deletes a key whose text is none that sessiond writes, if it still has that.
func (s *shared) discardText(ctx context.Context, group, key string, text []byte) error {
	s.found(group, codec.GarbageKey, key)
	call := redisconn.NewCall(ctx, discardTextScript, []string{key}, text)
	if err := s.client.Exchange(ctx, []redis.Cmder{call}); err != nil {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	return nil
}

// discardTextScript deletes a string.
//
// KEYS: 1 the key. ARGV: 1 its text. Returns 1 when it was deleted.
var discardTextScript = redis.NewScript(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('UNLINK', KEYS[1])
`)
