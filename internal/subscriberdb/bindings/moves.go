package bindings

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
)

// Earlier versions stored all bindings of a group in one hash, the old key
// (codec.OldBindingsKey). A writer first moves them to the parts; a reader reads both. A
// binding in the old key is newer than one of its block in a part: an earlier version,
// which has only the old key, wrote it after a later version had moved all.

// movedGroups holds the groups whose old key was found to be gone.
type movedGroups struct {
	mu     sync.Mutex
	groups map[string]bool
}

func (m *movedGroups) has(group string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.groups[group]
}

func (m *movedGroups) set(group string, moved bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.groups == nil {
		m.groups = map[string]bool{}
	}
	m.groups[group] = moved
}

// foundOldBindings makes the next write move the bindings: restoring an old backup brings
// the old key back.
func (s *Store) foundOldBindings(group string) { s.moved.set(group, false) }

// moveChunk bounds the bindings of one step of a move.
const moveChunk = 256

// moveScript moves bindings that still are in the old key.
//
//	KEYS
//	1    the old key
//	2... the parts
//	ARGV
//	     of each binding its field, and which of KEYS is its part
//
// It returns the number of bindings that it moved.
var moveScript = redis.NewScript(`
local call, old, moved = redis.call, KEYS[1], 0
for i = 1, #ARGV, 2 do
  local value = call('HGET', old, ARGV[i])
  if value then
    call('HSET', KEYS[tonumber(ARGV[i + 1])], ARGV[i], value)
    call('HDEL', old, ARGV[i])
    moved = moved + 1
  end
end
return moved`)

// moveBindings moves the bindings in the old key, a few in each step, so that a daemon
// continues after one that was killed meanwhile. Redis deletes the old key with its last
// field.
func (s *Store) moveBindings(ctx context.Context, group string) error {
	if s.moved.has(group) {
		return nil
	}
	total := int64(0)
	for {
		err := s.client.ScanHash(ctx, codec.OldBindingsKey(group), func(fields []string) error {
			for chunk := range slices.Chunk(fields, 2*moveChunk) {
				n, err := s.moveRows(ctx, group, chunk)
				if total += n; err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("move bindings: %w", err)
		}
		left, err := s.client.Exists(ctx, codec.OldBindingsKey(group)).Result()
		if err != nil {
			return fmt.Errorf("move bindings: %w", err)
		}
		if left == 0 {
			break
		}
	}
	if total > 0 {
		s.logger.Info("stored bindings moved from one key to many", "group", group, "bindings", total)
	}
	s.moved.set(group, true)
	return nil
}

// moveRows moves the bindings of the fields, which are names and values in turn. A field
// that is no binding goes to part 0, where a scan reports it.
func (s *Store) moveRows(ctx context.Context, group string, fields []string) (int64, error) {
	keys := []string{codec.OldBindingsKey(group)}
	var index [codec.BindingParts]int // of the part in keys, from 1
	args := make([]any, 0, len(fields))
	for i := 0; i+1 < len(fields); i += 2 {
		part := uint8(0)
		if block, err := codec.ParsePlace(fields[i]); err == nil {
			part = codec.BindingPart(block.Outside)
		}
		if index[part] == 0 {
			keys = append(keys, codec.BindingsKey(group, part))
			index[part] = len(keys)
		}
		args = append(args, fields[i], index[part])
	}
	call := redisconn.NewCall(ctx, moveScript, keys, args...)
	if err := s.client.Exchange(ctx, []redis.Cmder{call}); err != nil {
		return 0, err
	}
	return call.Int64()
}

// withoutOld returns the fields, names and values of a part, without those that the old key
// has too.
func (s *Store) withoutOld(ctx context.Context, group string, fields []string) ([]string, error) {
	names := make([]string, 0, len(fields)/2)
	for i := 0; i+1 < len(fields); i += 2 {
		names = append(names, fields[i])
	}
	old, err := s.client.HMGet(ctx, codec.OldBindingsKey(group), names...).Result()
	if err != nil {
		return nil, fmt.Errorf("read bindings of group %q: %w", group, err)
	}
	var kept []string
	for i := range names {
		if old[i] == nil {
			kept = append(kept, fields[2*i], fields[2*i+1])
		}
	}
	return kept, nil
}
