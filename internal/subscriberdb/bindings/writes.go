package bindings

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
)

// bindingChunk bounds the bindings of one write: it is one step, during which Redis serves
// no other client.
const bindingChunk = 512

// SaveBindings writes and removes bindings of a group. Up to 512 of them are one step, more
// are several; at any time each binding has its old or its new value. A binding that is
// both written and removed is written. The NAT log of the group does not learn of these
// writes: where the NAT is logged, [Store.SaveLogged] follows for each. Where it is not, an
// earlier log ends, as it would be wrong from now on.
func (s *Store) SaveBindings(ctx context.Context, group string, put []nat.Binding, remove []nat.Place) error {
	w := bindingWrites.Get().(*bindingWriter)
	defer w.free()
	w.collect(put, remove)
	err := errors.Join(s.endLog(ctx, group), s.moveBindings(ctx, group))
	for chunk := range slices.Chunk(w.writes, bindingChunk) {
		if err == nil {
			err = s.client.Together(ctx, w.calls(ctx, group, chunk))
		}
	}
	if err != nil {
		return fmt.Errorf("save bindings of group %q: %w", group, err)
	}
	return nil
}

// bindingWrite writes a binding, or removes the one of a block.
type bindingWrite struct {
	put   *nat.Binding // nil to remove
	block nat.Place
	part  uint8
}

// bindingWriter holds the memory of one call of SaveBindings.
type bindingWriter struct {
	writes []bindingWrite
	sorted []bindingWrite // memory for collect
	args   codec.ArgBuffer
	ends   []int // of the commands in args
	cmds   []redis.Cmder
}

var bindingWrites = sync.Pool{New: func() any { return new(bindingWriter) }}

// writesRoom bounds the writes for which memory is kept: one call may have this many under
// load.
const writesRoom = 16_384

func (w *bindingWriter) free() {
	if cap(w.writes) > writesRoom {
		return
	}
	w.clear()
	bindingWrites.Put(w)
}

func (w *bindingWriter) clear() {
	clear(w.writes)
	clear(w.sorted)
	w.writes, w.sorted = w.writes[:0], w.sorted[:0]
	w.reset()
}

func (w *bindingWriter) reset() {
	w.args.Reset()
	clear(w.cmds)
	w.ends, w.cmds = w.ends[:0], w.cmds[:0]
}

// collect gathers the writes, by part.
func (w *bindingWriter) collect(put []nat.Binding, remove []nat.Place) {
	w.writes = slices.Grow(w.writes, len(put)+len(remove))
	written := map[nat.Place]struct{}(nil)
	if len(remove) > 0 && len(put)+len(remove) > bindingChunk { // one chunk may remove a binding that the next one writes
		written = make(map[nat.Place]struct{}, len(put))
		for i := range put {
			written[put[i].Place()] = struct{}{}
		}
	}
	for _, b := range remove {
		if _, ok := written[b]; !ok {
			w.writes = append(w.writes, bindingWrite{nil, b, codec.BindingPart(b.Outside)})
		}
	}
	for i := range put {
		b := &put[i]
		w.writes = append(w.writes, bindingWrite{b, b.Place(), codec.BindingPart(b.Outside)})
	}
	w.sort()
}

// sort sorts the writes by part, and keeps the order of those of one part.
func (w *bindingWriter) sort() {
	// This is a counting sort: a stable sort with comparisons takes 0.08 of 0.50 us a binding
	// longer (BenchmarkSaveBindings/batch=512/addresses=8192).
	var next [codec.BindingParts + 1]int // place of each part's next write
	for i := range w.writes {
		next[w.writes[i].part+1]++
	}
	for part := range codec.BindingParts {
		next[part+1] += next[part]
	}
	w.sorted = slices.Grow(w.sorted[:0], len(w.writes))[:len(w.writes)]
	for _, x := range w.writes {
		w.sorted[next[x.part]] = x
		next[x.part]++
	}
	w.writes, w.sorted = w.sorted, w.writes
}

// calls returns the commands of a chunk: for each part one that removes, followed by one
// that writes. They are valid until the next call of calls.
func (w *bindingWriter) calls(ctx context.Context, group string, chunk []bindingWrite) []redis.Cmder {
	w.reset()
	for i := range chunk {
		b := &chunk[i]
		if i == 0 || b.part != chunk[i-1].part || (b.put == nil) != (chunk[i-1].put == nil) {
			w.ends = append(w.ends, len(w.args.List))
			name := "hdel"
			if b.put != nil {
				name = "hset"
			}
			w.args.List = append(w.args.List, name, codec.BindingsKey(group, b.part))
		}
		w.args.Text = codec.AppendPlace(w.args.Text, b.block)
		w.args.Cut()
		if b.put != nil {
			w.args.Text = codec.AppendBinding(w.args.Text, b.put)
			w.args.Cut()
		}
	}
	w.ends = append(w.ends, len(w.args.List))
	for i, end := range w.ends[1:] {
		w.cmds = append(w.cmds, redis.NewIntCmd(ctx, w.args.List[w.ends[i]:end]...))
	}
	return w.cmds
}

// Earlier versions stored all bindings of a group in one hash, the old key
// (codec.OldBindingsKey). A writer first moves them to the parts; a reader reads both. A
// binding in the old key is newer than one of its block in a part: an earlier version,
// which has only the old key, wrote it after a later version had moved all.

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
	if _, moved := s.moved.Load(group); moved {
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
	s.moved.Store(group, true)
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
