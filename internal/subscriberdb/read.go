package subscriberdb

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/addrrange"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/nases"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
)

// recordReader reads records.
type recordReader struct {
	*shared
	clients   *clientSet
	reporters *nases.Reporters
}

// Get returns the record of a key, or ErrNotFound.
func (rd *recordReader) Get(ctx context.Context, key subscriber.Key) (subscriber.Record, error) {
	if _, err := rd.group(key.Group); err != nil {
		return subscriber.Record{}, err
	}
	key.Inside = key.Inside.Unmap()
	records, err := rd.read(ctx, rd.client, []subscriber.Key{key})
	if err != nil {
		return subscriber.Record{}, err
	}
	if len(records) == 0 {
		return subscriber.Record{}, fmt.Errorf("record %v in group %q: %w", key.Inside, key.Group, ErrNotFound)
	}
	return records[0], nil
}

// Records yields all records of a group in batches, in order of inside address. It takes
// the addresses from the hash of online addresses, which is written in one step with each
// record; a scan of the hash costs Redis a quarter of a scan of all keys. It does not yield
// a record without an entry there, which another program may write; Versions does. It may
// miss a record that is written meanwhile; the feed has that change, if it is read from its
// position before the call. An error of yield ends the walk.
func (rd *recordReader) Records(ctx context.Context, group string, yield func([]subscriber.Record) error) error {
	if _, err := rd.group(group); err != nil {
		return err
	}
	online, err := rd.onlineAddresses(ctx, group)
	if err != nil {
		return err
	}
	return redisconn.ReadAhead(ctx, func(ctx context.Context, emit func([]subscriber.Record) error) error {
		inside := make([]netip.Addr, 0, redisconn.ScanCount)
		for some := range slices.Chunk(online, redisconn.ScanCount) {
			inside = inside[:0]
			for _, a := range some {
				inside = append(inside, netip.AddrFrom16(a).Unmap())
			}
			records, err := rd.RecordsAt(ctx, group, inside)
			if err != nil {
				return err
			}
			if len(records) == 0 {
				continue
			}
			rd.noteReporters(records)
			if err := emit(records); err != nil {
				return err
			}
		}
		return nil
	}, yield)
}

// onlineAddresses returns the addresses of a group that have an online entry, in order, and
// in the form of [netip.Addr.As16], which has no pointers for the garbage collector.
func (rd *recordReader) onlineAddresses(ctx context.Context, group string) ([][16]byte, error) {
	var online [][16]byte
	var some []netip.Addr
	err := rd.client.ScanHash(ctx, codec.OnlineKey(group), func(fields []string) error {
		some = codec.AppendOnline(some[:0], fields)
		for _, a := range some {
			online = append(online, a.As16())
		}
		return nil
	})
	return inOrder(online), err
}

// noteReporters notes the clients that report the sessions of existing records, so that a
// daemon that starts knows each client's NASes before the first event (SES-16).
func (rd *recordReader) noteReporters(records []subscriber.Record) {
	var last subscriber.SessionID
	for i := range records {
		id := records[i].NASOnly()
		if id == last || id.Client == "" || id.NAS == "" {
			continue
		}
		if _, configured := rd.clients.realmOf(id.Client); configured {
			rd.reporters.Reported(id)
		}
		last = id
	}
}

// read returns the records of the keys that exist, in one round trip.
func (rd *recordReader) read(ctx context.Context, server redis.UniversalClient, keys []subscriber.Key) ([]subscriber.Record, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	names, words := codec.RecordKeys(keys), make([]any, 0, 4*len(keys))
	cmds := make([]redis.Cmder, 0, 2*len(keys))
	for i := range names {
		words = append(words, "hgetall", &names[i], "pttl", &names[i])
		w := words[len(words)-4:]
		cmds = append(cmds, redis.NewMapStringStringCmd(ctx, w[:2:2]...), redis.NewDurationCmd(ctx, time.Millisecond, w[2:]...))
	}
	if err := redisconn.Failure(cmds, redisconn.Pipeline(ctx, server, cmds)); err != nil {
		return nil, fmt.Errorf("read records: %w", err)
	}
	now := rd.now()
	records := make([]subscriber.Record, 0, len(keys))
	for i, key := range keys {
		hash := cmds[2*i].(*redis.MapStringStringCmd)
		if redisconn.IsWrongType(hash.Err()) {
			rd.foundRecord(key)
		}
		if fields := hash.Val(); len(fields) > 0 {
			r := codec.ParseRecord(key, fields)
			r.ExpiresAt = expiry(now, cmds[2*i+1].(*redis.DurationCmd).Val())
			records = append(records, r)
		}
	}
	return records, nil
}

// readSessions is read for the fields that identify the session only: it takes half the
// time of Redis and of sessiond.
func (rd *recordReader) readSessions(ctx context.Context, keys []subscriber.Key) ([]subscriber.Record, error) {
	calls := make([]redis.Cmder, len(keys))
	for i, key := range keys {
		args := append(make([]any, 0, 8), "hmget", codec.RecordKey(key.Group, key.Inside))
		calls[i] = redis.NewStringSliceCmd(ctx, codec.AppendSessionFields(args)...)
	}
	if err := redisconn.Failure(calls, rd.client.Exchange(ctx, calls)); err != nil {
		return nil, fmt.Errorf("read sessions of records: %w", err)
	}
	records := make([]subscriber.Record, 0, len(keys))
	for i, key := range keys {
		if r, ok := codec.ParseSessionFields(key, calls[i].(*redis.StringSliceCmd).Val()); ok {
			records = append(records, r)
		}
	}
	return records, nil
}

// expiry turns a PTTL into a time; negative means none.
func expiry(now time.Time, ttl time.Duration) time.Time {
	if ttl < 0 {
		return time.Time{}
	}
	return now.Add(ttl)
}

// Gone returns the addresses of a group that have no record, in the order given. If all
// have records it costs one command for each 512 addresses. A key that is no hash counts as
// a record. The commands make Redis expire the records whose TTL has run out. No command
// has more than PipelineLimit keys, so none blocks Redis for long.
func (rd *recordReader) Gone(ctx context.Context, group string, inside []netip.Addr) ([]netip.Addr, error) {
	if _, err := rd.group(group); err != nil {
		return nil, err
	}
	var gone []netip.Addr
	args := codec.NewArgs()
	defer args.Free()
	for chunk := range slices.Chunk(inside, redisconn.PipelineLimit) {
		there, err := rd.countOnline(ctx, group, chunk, args)
		if err == nil && there < len(chunk) {
			gone, err = rd.appendGone(ctx, gone, group, chunk)
		}
		if err != nil {
			return nil, fmt.Errorf("look for records of group %q: %w", group, err)
		}
	}
	return gone, nil
}

// countOnline returns the number of addresses that have a record; inside must not be
// empty. It builds the arguments of the command in room.
func (rd *recordReader) countOnline(ctx context.Context, group string, inside []netip.Addr, room *codec.ArgBuffer) (int, error) {
	room.List = append(room.List, "exists", codec.RecordKey(group, inside[0])) // a string, because the Cluster client finds the server by it
	for _, a := range inside[1:] {
		room.Text = codec.AppendRecordKey(room.Text, group, a)
		room.Cut()
	}
	cmd := redis.NewIntCmd(ctx, room.List...)
	err := rd.client.Process(ctx, cmd)
	room.Reset()
	return int(cmd.Val()), err
}

// appendGone checks each address with a command of its own, and appends those without a
// record to gone.
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

// RecordVersion is the address and version of an existing record.
type RecordVersion struct {
	Inside  netip.Addr
	Version subscriber.Version // zero for a record without one, or with a text that is none
}

// Versions yields the address and version of each record, of some perhaps twice, for a
// reader that already has most of the records.
func (rd *recordReader) Versions(ctx context.Context, group string, yield func([]RecordVersion) error) error {
	return redisconn.ReadAhead(ctx, func(ctx context.Context, emit func([]RecordVersion) error) error {
		return rd.scanVersions(ctx, group, emit)
	}, yield)
}

// VersionsInOrder is Versions in order of inside address, for a reader that has its own
// records in that order, and expects about so many. It reads all versions first, and keeps
// 24 octets of each, because Redis finds a record faster right after a scan met it. A batch
// is valid until yield returns.
func (rd *recordReader) VersionsInOrder(ctx context.Context, group string, about int, yield func([]RecordVersion) error) error {
	type addressVersion struct {
		inside  uint32
		version subscriber.Version
	}
	versions := make([]addressVersion, 0, about)
	var other []RecordVersion // of addresses that are not IPv4
	err := rd.Versions(ctx, group, func(standing []RecordVersion) error {
		for _, r := range standing {
			if !r.Inside.Is4() {
				other = append(other, r)
				continue
			}
			versions = append(versions, addressVersion{addrrange.Number(r.Inside), r.Version})
		}
		return nil
	})
	if err != nil {
		return err
	}
	slices.SortFunc(versions, func(a, b addressVersion) int { return cmp.Compare(a.inside, b.inside) })
	slices.SortFunc(other, func(a, b RecordVersion) int { return a.Inside.Compare(b.Inside) })
	batch := make([]RecordVersion, 0, redisconn.ScanCount)
	for some := range slices.Chunk(versions, redisconn.ScanCount) {
		batch = batch[:0]
		for _, v := range some {
			batch = append(batch, RecordVersion{addrrange.Address(v.inside), v.version})
		}
		if err := yield(batch); err != nil {
			return err
		}
	}
	if len(other) == 0 {
		return nil
	}
	return yield(other)
}

// inOrder sorts addresses, and removes those that a scan yielded twice.
func inOrder(list [][16]byte) [][16]byte {
	slices.SortFunc(list, func(a, b [16]byte) int { return bytes.Compare(a[:], b[:]) })
	return slices.Compact(list)
}

// scanVersions reads the versions of the keys of one scan while Redis executes the next.
func (rd *recordReader) scanVersions(ctx context.Context, group string, yield func([]RecordVersion) error) error {
	type scanned struct {
		server redis.UniversalClient
		names  []string
	}
	if _, err := rd.group(group); err != nil {
		return err
	}
	args := codec.NewArgs()
	defer args.Free()
	return redisconn.ReadAhead(ctx, func(ctx context.Context, emit func(scanned) error) error {
		return rd.client.ScanKeys(ctx, codec.RecordPattern(group), "hash", func(server redis.UniversalClient, names []string) error {
			return emit(scanned{server, names})
		})
	}, func(s scanned) error { return yieldVersions(ctx, s.server, group, s.names, args, yield) })
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
			room.List = append(room.List, "hget", &names[i], "version")
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
		standing[i].Version = subscriber.ParseVersion(cmds[i].(*redis.StringCmd).Val())
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
