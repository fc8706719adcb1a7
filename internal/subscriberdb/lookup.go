package subscriberdb

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/redis/go-redis/v9"
)

// The reads of this file are by key, for a reader who goes over what it knows a part
// at a time. Each command asks for at most pipelineLimit things, so none keeps Redis
// from others for long.

// Gone returns those of the addresses of a group where no record stands, in the order
// asked. Where all stand it costs one command for each 512 addresses. A key that is no
// hash counts as a record. To ask makes Redis expire what has run out.
func (db *DB) Gone(ctx context.Context, group string, inside []netip.Addr) ([]netip.Addr, error) {
	if _, err := db.group(group); err != nil {
		return nil, err
	}
	var gone []netip.Addr
	for chunk := range slices.Chunk(inside, pipelineLimit) {
		there, err := db.countStanding(ctx, group, chunk)
		if err == nil && there < len(chunk) {
			gone, err = db.appendGone(ctx, gone, group, chunk)
		}
		if err != nil {
			return nil, fmt.Errorf("look for records of group %q: %w", group, err)
		}
	}
	return gone, nil
}

// countStanding counts at how many of the addresses a record stands.
func (db *DB) countStanding(ctx context.Context, group string, inside []netip.Addr) (int, error) {
	keys := make([]string, len(inside))
	for i, a := range inside {
		keys[i] = recordKey(group, a)
	}
	n, err := db.client.Exists(ctx, keys...).Result()
	return int(n), err
}

// appendGone asks for each address alone.
func (db *DB) appendGone(ctx context.Context, gone []netip.Addr, group string, inside []netip.Addr) ([]netip.Addr, error) {
	calls := make([]redis.Cmder, len(inside))
	for i, a := range inside {
		calls[i] = redis.NewIntCmd(ctx, "exists", recordKey(group, a))
	}
	if err := pipeline(ctx, db.client, calls); err != nil {
		return nil, err
	}
	for i, a := range inside {
		if calls[i].(*redis.IntCmd).Val() == 0 {
			gone = append(gone, a)
		}
	}
	return gone, nil
}

// VersionsAt returns the versions of the records at some addresses of a group, in the
// order asked; "" where none stands. A record that somebody wrote by hand without a
// version has the version "-".
func (db *DB) VersionsAt(ctx context.Context, group string, inside []netip.Addr) ([]string, error) {
	if _, err := db.group(group); err != nil {
		return nil, err
	}
	versions := make([]string, 0, len(inside))
	for chunk := range slices.Chunk(inside, pipelineLimit) {
		var err error
		if versions, err = db.appendVersions(ctx, versions, group, chunk); err != nil {
			return nil, fmt.Errorf("read versions of group %q: %w", group, err)
		}
	}
	return versions, nil
}

func (db *DB) appendVersions(ctx context.Context, versions []string, group string, inside []netip.Addr) ([]string, error) {
	calls := make([]redis.Cmder, len(inside))
	for i, a := range inside {
		calls[i] = redis.NewStringCmd(ctx, "hget", recordKey(group, a), "version")
	}
	failed := pipeline(ctx, db.client, calls)
	var doubtful []int // in versions
	for i, c := range calls {
		if err := answered(c, failed); err != nil && !redis.HasErrorPrefix(err, "WRONGTYPE") {
			return nil, err
		}
		if errors.Is(c.Err(), redis.Nil) {
			doubtful = append(doubtful, len(versions)+i)
		}
	}
	first := len(versions)
	for _, c := range calls {
		versions = append(versions, c.(*redis.StringCmd).Val())
	}
	if len(doubtful) == 0 {
		return versions, nil
	}
	calls = calls[:0]
	for _, i := range doubtful {
		calls = append(calls, redis.NewIntCmd(ctx, "exists", recordKey(group, inside[i-first])))
	}
	if err := pipeline(ctx, db.client, calls); err != nil {
		return nil, err
	}
	for n, i := range doubtful {
		if calls[n].(*redis.IntCmd).Val() > 0 {
			versions[i] = unversioned
		}
	}
	return versions, nil
}
