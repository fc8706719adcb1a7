package subscriberdb

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
)

// The reads of this file are by key, for a reader who goes over what it knows a part
// at a time. Each command asks for at most pipelineLimit things, so none keeps Redis
// from others for long.

// Gone returns those of the addresses of a group where no record stands, in the order
// asked. Where all stand it costs one command for each 512 addresses. A key that is no
// hash counts as a record. To ask makes Redis expire what has run out.
func (rd *recordReader) Gone(ctx context.Context, group string, inside []netip.Addr) ([]netip.Addr, error) {
	if _, err := rd.group(group); err != nil {
		return nil, err
	}
	var gone []netip.Addr
	args := argLists.Get().(*codec.ArgBuffer)
	defer argLists.Put(args)
	for chunk := range slices.Chunk(inside, redisconn.PipelineLimit) {
		there, err := rd.countStanding(ctx, group, chunk, args)
		if err == nil && there < len(chunk) {
			gone, err = rd.appendGone(ctx, gone, group, chunk)
		}
		if err != nil {
			return nil, fmt.Errorf("look for records of group %q: %w", group, err)
		}
	}
	return gone, nil
}

// countStanding counts at how many of the addresses, of which there is one at least, a
// record stands. The arguments of the command are made in room.
func (rd *recordReader) countStanding(ctx context.Context, group string, inside []netip.Addr, room *codec.ArgBuffer) (int, error) {
	room.Add("exists", codec.RecordKey(group, inside[0])) // a string, by which a Cluster finds the server
	for _, a := range inside[1:] {
		room.Text = codec.AppendRecordKey(room.Text, group, a)
		room.Cut()
	}
	cmd := redis.NewIntCmd(ctx, room.List...)
	err := rd.client.Process(ctx, cmd)
	room.Reset()
	return int(cmd.Val()), err
}

// appendGone asks for each address alone.
func (rd *recordReader) appendGone(ctx context.Context, gone []netip.Addr, group string, inside []netip.Addr) ([]netip.Addr, error) {
	calls := make([]redis.Cmder, len(inside))
	for i, a := range inside {
		calls[i] = redis.NewIntCmd(ctx, "exists", codec.RecordKey(group, a))
	}
	if err := redisconn.Pipeline(ctx, rd.client, calls); err != nil {
		return nil, err
	}
	for i, a := range inside {
		if calls[i].(*redis.IntCmd).Val() == 0 {
			gone = append(gone, a)
		}
	}
	return gone, nil
}
