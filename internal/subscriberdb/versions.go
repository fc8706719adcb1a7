package subscriberdb

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
)

// RecordVersion is the address and version of an existing record.
type RecordVersion struct {
	Inside  netip.Addr
	Version string
}

// Versions yields the address and version of each record, for a reader that already has
// most of the records.
func (rd *recordReader) Versions(ctx context.Context, group string, yield func([]RecordVersion) error) error {
	return redisconn.ReadAhead(ctx, func(ctx context.Context, emit func([]RecordVersion) error) error {
		return rd.scanVersions(ctx, group, emit)
	}, yield)
}

// VersionsInOrder is Versions in order of inside address, of the records that exist at the
// beginning: for a reader that has its own records in that order and does not pause
// meanwhile.
func (rd *recordReader) VersionsInOrder(ctx context.Context, group string, yield func([]RecordVersion) error) error {
	var recorded [][16]byte // as netip.Addr.As16 has them: without a pointer in each
	err := rd.scanRecordKeys(ctx, group, func(_ redis.UniversalClient, names []string) error {
		for _, name := range names {
			if key, ok := codec.ParseRecordKey(name); ok {
				recorded = append(recorded, key.Inside.As16())
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return redisconn.ReadAhead(ctx, func(ctx context.Context, emit func([]RecordVersion) error) error {
		args := codec.NewArgs()
		defer args.Free()
		keys := make([]subscriber.Key, 0, redisconn.ScanCount)
		for some := range slices.Chunk(inOrder(recorded), redisconn.ScanCount) {
			keys = keys[:0]
			for _, a := range some {
				keys = append(keys, subscriber.Key{Group: group, Inside: netip.AddrFrom16(a).Unmap()})
			}
			if err := yieldVersions(ctx, rd.client, group, codec.RecordKeys(keys), args, emit); err != nil {
				return err
			}
		}
		return nil
	}, yield)
}

// inOrder sorts addresses, and removes those that a scan yielded twice.
func inOrder(list [][16]byte) [][16]byte {
	slices.SortFunc(list, func(a, b [16]byte) int { return bytes.Compare(a[:], b[:]) })
	return slices.Compact(list)
}

func (rd *recordReader) scanVersions(ctx context.Context, group string, yield func([]RecordVersion) error) error {
	args := codec.NewArgs()
	defer args.Free()
	return rd.scanRecordKeys(ctx, group, func(server redis.UniversalClient, names []string) error {
		return yieldVersions(ctx, server, group, names, args, yield)
	})
}

// scanRecordKeys yields the names of a group's record keys in batches, in no order, with
// the server that holds them.
func (rd *recordReader) scanRecordKeys(ctx context.Context, group string, yield func(server redis.UniversalClient, names []string) error) error {
	if _, err := rd.group(group); err != nil {
		return err
	}
	return rd.client.ScanKeys(ctx, codec.RecordPattern(group), "hash", yield)
}

func yieldVersions(ctx context.Context, server redis.UniversalClient, group string, names []string, room *codec.ArgBuffer, yield func([]RecordVersion) error) error {
	standing, err := versionsOf(ctx, server, names, room)
	if err != nil {
		return fmt.Errorf("read versions of group %q: %w", group, err)
	}
	if len(standing) == 0 {
		return nil
	}
	return yield(standing)
}

// versionsOf returns the versions of the records of some keys; it skips other keys. It
// builds the arguments of the commands in room.
func versionsOf(ctx context.Context, server redis.UniversalClient, names []string, room *codec.ArgBuffer) ([]RecordVersion, error) {
	standing, cmds := make([]RecordVersion, 0, len(names)), make([]redis.Cmder, 0, len(names))
	room.List = slices.Grow(room.List, 3*len(names)) // commands refer to it
	for i := range names {
		if key, ok := codec.ParseRecordKey(names[i]); ok {
			at := len(room.List)
			room.Add("hget", &names[i], "version")
			standing, cmds = append(standing, RecordVersion{Inside: key.Inside}), append(cmds, redis.NewStringCmd(ctx, room.List[at:len(room.List):len(room.List)]...))
		}
	}
	if len(cmds) == 0 {
		return nil, nil
	}
	err := redisconn.Failure(cmds, redisconn.Pipeline(ctx, server, cmds))
	room.Reset()
	if err != nil {
		return nil, err
	}
	for i := range standing {
		standing[i].Version = cmds[i].(*redis.StringCmd).Val()
	}
	return standing, nil
}

// RecordsAt returns the records at some addresses of a group, in any order. Addresses
// without a record are left out.
func (rd *recordReader) RecordsAt(ctx context.Context, group string, inside []netip.Addr) ([]subscriber.Record, error) {
	if _, err := rd.group(group); err != nil {
		return nil, err
	}
	keys := make([]subscriber.Key, len(inside))
	for i, a := range inside {
		keys[i] = subscriber.Key{Group: group, Inside: a}
	}
	return rd.read(ctx, rd.client, keys)
}
