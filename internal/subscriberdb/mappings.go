package subscriberdb

import (
	"context"
	"fmt"
	"slices"

	"github.com/sessiond/sessiond/internal/audit"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
	"github.com/sessiond/sessiond/internal/subscriberdb/trail"
)

// mappingStore reads and writes the mappings that outlive their sessions.
type mappingStore struct {
	*shared
	trails *trail.Store
}

// mappingChunk bounds the mappings of one write: it is one step, during which Redis serves no
// other client.
const mappingChunk = 512

// Mappings yields the stored mappings of a group in batches, in no order, those in quarantine
// too. One that is written meanwhile may be missed or yielded twice. One that cannot be read
// is reported as garbage and left out. An error of yield ends the scan.
func (s *mappingStore) Mappings(ctx context.Context, group string, yield func([]nat.Mapping) error) error {
	key := codec.MappingsKey(group)
	err := s.client.ScanHash(ctx, key, func(fields []string) error {
		list := make([]nat.Mapping, 0, len(fields)/2)
		for i := 0; i+1 < len(fields); i += 2 {
			m, err := codec.ParseMapping(group, fields[i], fields[i+1])
			if err != nil {
				s.found(group, codec.GarbageKey, key+" "+fields[i])
				continue
			}
			list = append(list, m)
		}
		return yield(list)
	})
	if redisconn.UnlessWrongType(err) != nil {
		return fmt.Errorf("read %s: %w", key, err)
	}
	return nil
}

// CountMappings returns the number of fields of a group's MappingsKey, readable or not.
func (s *mappingStore) CountMappings(ctx context.Context, group string) (int, error) {
	n, err := s.client.HLen(ctx, codec.MappingsKey(group)).Result()
	if redisconn.UnlessWrongType(err) != nil {
		return 0, fmt.Errorf("count %s: %w", codec.MappingsKey(group), err)
	}
	return int(n), nil
}

// SaveMappings writes and removes mappings of a group. Up to 512 of them are one step.
func (s *mappingStore) SaveMappings(ctx context.Context, group string, put []nat.Mapping, remove []nat.Endpoint) error {
	key := codec.MappingsKey(group)
	for chunk := range slices.Chunk(put, mappingChunk) {
		args := append(make([]any, 0, 2+2*len(chunk)), "hset", key)
		for i := range chunk {
			text, err := codec.FormatMapping(&chunk[i])
			if err != nil {
				return fmt.Errorf("write %s: %w", key, err)
			}
			args = append(args, codec.FormatEndpoint(chunk[i].Outside), text)
		}
		if err := s.write(ctx, group, args, 2); err != nil {
			return fmt.Errorf("write %s: %w", key, err)
		}
	}
	for chunk := range slices.Chunk(remove, mappingChunk) {
		args := append(make([]any, 0, 2+len(chunk)), "hdel", key)
		for _, e := range chunk {
			args = append(args, codec.FormatEndpoint(e))
		}
		if err := s.write(ctx, group, args, 1); err != nil {
			return fmt.Errorf("remove from %s: %w", key, err)
		}
	}
	return nil
}

// write executes a command on the mappings of a group: two words, and then some words for each
// mapping, of which the first is its field.
func (s *mappingStore) write(ctx context.Context, group string, command []any, each int) error {
	key := codec.MappingsKey(group)
	return s.trails.Write(ctx, group, func(e *audit.Entry) {
		e.Group, e.Count = group, (len(command)-2)/each
		for i := 2; i < len(command); i += each {
			e.Keys = append(e.Keys, fmt.Sprint(command[i]))
		}
		if e.Count == 1 && each == 2 {
			e.New = fmt.Sprintf("%s", command[3])
		}
	}, []string{key}, command)
}
