package subscriberdb

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/audit"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
	"github.com/sessiond/sessiond/internal/subscriberdb/trail"
)

// valueStore reads and writes the live settings, and each group's marker, owner and served
// configuration.
type valueStore struct {
	*shared
	trails *trail.Store
}

// Settings returns the live settings, empty if none were ever written.
func (v *valueStore) Settings(ctx context.Context) (map[string]string, error) {
	settings, err := v.client.HGetAll(ctx, codec.SettingsKey).Result()
	if err != nil {
		return nil, fmt.Errorf("read settings: %w", err)
	}
	return settings, nil
}

// InitSettings writes the settings that do not exist yet.
func (v *valueStore) InitSettings(ctx context.Context, first map[string]string) error {
	pipe := v.client.Pipeline()
	for name, value := range first {
		pipe.HSetNX(ctx, codec.SettingsKey, name, value)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("write first settings: %w", err)
	}
	return nil
}

// SetSettings writes the given settings in one command and leaves the others.
func (v *valueStore) SetSettings(ctx context.Context, settings map[string]string) error {
	if len(settings) == 0 {
		return nil
	}
	names := slices.Sorted(maps.Keys(settings))
	words := []any{"hset", codec.SettingsKey}
	values := make([]trail.Value, len(names))
	for i, name := range names {
		words = append(words, name, settings[name])
		values[i] = trail.Value{Key: codec.SettingsKey, Field: name}
	}
	err := v.trails.Replace(ctx, audit.DaemonTrail, values, func(e *audit.Entry, old []*string) {
		e.Count, e.Keys = len(names), names
		for i, name := range names {
			if old[i] != nil {
				e.Old += name + "=" + *old[i] + " "
			}
			e.New += name + "=" + settings[name] + " "
		}
		e.Old, e.New = strings.TrimSpace(e.Old), strings.TrimSpace(e.New)
	}, words)
	if err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	return nil
}

// Marker proves that a group's data are complete. A Redis that lost its data, or another
// Redis, has no marker or another one (I6).
type Marker = codec.Marker

// Marker returns the marker of a group, and false if there is none.
func (v *valueStore) Marker(ctx context.Context, group string) (Marker, bool, error) {
	text, err := v.client.Get(ctx, codec.MarkerKey(group)).Bytes()
	if errors.Is(err, redis.Nil) {
		return Marker{}, false, nil
	}
	if err != nil {
		return Marker{}, false, fmt.Errorf("read marker of group %q: %w", group, err)
	}
	m, ok := codec.ParseMarker(text)
	if !ok { // it proves nothing, and blocks a new one
		return Marker{}, false, v.discardText(ctx, group, codec.MarkerKey(group), text)
	}
	return m, true, nil
}

// SetMarker sets the marker of a group that has none. It keeps an existing marker of any
// daemon.
func (v *valueStore) SetMarker(ctx context.Context, group string, m Marker) error {
	text, err := codec.FormatMarker(m)
	if err != nil {
		return fmt.Errorf("write marker: %w", err)
	}
	if err := v.client.SetNX(ctx, codec.MarkerKey(group), text, 0).Err(); err != nil {
		return fmt.Errorf("write marker of group %q: %w", group, err)
	}
	return nil
}

// noKey is the answer of PTTL for a missing key.
const noKey = time.Duration(-2)

// Owner returns the holder of the lease of a group's NAT, "" for none, and the remaining
// time of the lease; negative: no end.
func (v *valueStore) Owner(ctx context.Context, group string) (line string, left time.Duration, err error) {
	pipe := v.client.Pipeline()
	owner, ttl := pipe.Get(ctx, codec.OwnerKey(group)), pipe.PTTL(ctx, codec.OwnerKey(group))
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return "", 0, fmt.Errorf("read owner of group %q: %w", group, err)
	}
	if ttl.Val() == noKey {
		return "", 0, nil // it expired between the two commands
	}
	return owner.Val(), ttl.Val(), nil
}

// SetOwner makes now the owner of a group's NAT for ttl, if the present owner is was, and
// reports whether it did. "" means no owner.
func (v *valueStore) SetOwner(ctx context.Context, group, was, now string, ttl time.Duration) (bool, error) {
	call := redisconn.NewCall(ctx, ownerScript, []string{codec.OwnerKey(group)}, was, now, ttl.Milliseconds())
	if err := v.client.Exchange(ctx, []redis.Cmder{call}); err != nil {
		return false, fmt.Errorf("write owner of group %q: %w", group, err)
	}
	done, err := call.Int()
	return done == 1, err
}

// ownerScript changes the owner of a lease, if it still is the owner that the caller saw.
//
// KEYS: 1 owner. ARGV: 1 the owner seen, "" for none, 2 the new one, "" for none,
// 3 its time to live in milliseconds. Returns 1 when it is done, 0 when there is
// another owner.
var ownerScript = redis.NewScript(`
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1]) -- first, for a Redis that is full (see txn/commit.go)
if ARGV[2] ~= '' then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
return 1
`)

// Served is the configuration that a group's NAT was last served with. A later start
// compares it with its configuration to find the parts to drain. SaveServed sets its
// RecordTTL and Guard.
type Served = codec.Served

// Terms are the settings of a Served that the kernel has.
type Terms = codec.Terms

// Served returns the configurations of the named groups, and of all other groups that are
// being served or drained. It leaves out a named group whose value cannot be read: the
// caller has its configuration, and the bindings show which parts drain. An unreadable
// value of another group is an error, because its subscribers would be cut.
func (v *valueStore) Served(ctx context.Context, named []string) ([]Served, error) {
	groups, err := v.client.SMembers(ctx, codec.GroupsKey).Result()
	if err != nil {
		return nil, fmt.Errorf("list served groups: %w", err)
	}
	groups = append(groups, named...)
	slices.Sort(groups)
	var all []Served
	for _, group := range slices.Compact(groups) {
		text, err := v.client.Get(ctx, codec.ServedKey(group)).Bytes()
		if errors.Is(err, redis.Nil) {
			continue // a start, or an end, that was interrupted
		}
		if redisconn.UnlessWrongType(err) != nil {
			return nil, fmt.Errorf("read %s: %w", codec.ServedKey(group), err)
		}
		var served Served
		if err == nil {
			served, err = codec.ParseServed(group, text)
		}
		if err != nil {
			v.found(group, codec.GarbageKey, codec.ServedKey(group))
			if slices.Contains(named, group) {
				continue
			}
			return nil, fmt.Errorf("%s cannot be read, so group %q, which is not configured, cannot be served to its end: configure it, or delete the key to cut its customers: %w",
				codec.ServedKey(group), group, err)
		}
		all = append(all, served)
	}
	return all, nil
}

// SaveServed writes the configuration of a group. The group is listed first, so that a
// search for groups finds it as soon as there is anything to find.
func (v *valueStore) SaveServed(ctx context.Context, s Served) error {
	g, err := v.group(s.Group)
	if err != nil {
		return err
	}
	s.RecordTTL, s.Guard = g.RecordTTL, g.Guard
	text, err := codec.FormatServed(&s)
	if err != nil {
		return fmt.Errorf("write %s: %w", codec.ServedKey(s.Group), err)
	}
	if err := v.client.SAdd(ctx, codec.GroupsKey, s.Group).Err(); err != nil {
		return fmt.Errorf("list served group %q: %w", s.Group, err)
	}
	if err := v.client.Set(ctx, codec.ServedKey(s.Group), text, 0).Err(); err != nil {
		return fmt.Errorf("write %s: %w", codec.ServedKey(s.Group), err)
	}
	return nil
}

// ForgetServed removes a drained group, in the reverse order.
func (v *valueStore) ForgetServed(ctx context.Context, group string) error {
	if err := v.client.Del(ctx, codec.ServedKey(group), codec.PoolsKey(group)).Err(); err != nil {
		return fmt.Errorf("forget %s: %w", codec.ServedKey(group), err)
	}
	if err := v.client.SRem(ctx, codec.GroupsKey, group).Err(); err != nil {
		return fmt.Errorf("forget served group %q: %w", group, err)
	}
	return nil
}

// PoolChange is a change of an outside prefix at run time, over the configuration.
type PoolChange = codec.PoolChange

// PoolKind is the kind of a change of an outside prefix.
type PoolKind = codec.PoolKind

// The kinds of changes of outside prefixes.
const (
	PoolAdded    = codec.PoolAdded
	PoolDraining = codec.PoolDraining
	PoolRemoved  = codec.PoolRemoved
	PoolCut      = codec.PoolCut
)

// PoolChanges returns the changes of a group's outside prefixes at run time. A value that
// cannot be read counts as none, and is reported as garbage.
func (v *valueStore) PoolChanges(ctx context.Context, group string) ([]PoolChange, error) {
	text, err := v.client.Get(ctx, codec.PoolsKey(group)).Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	if redisconn.UnlessWrongType(err) != nil {
		return nil, fmt.Errorf("read %s: %w", codec.PoolsKey(group), err)
	}
	var changes []PoolChange
	if err == nil {
		changes, err = codec.ParsePoolChanges(text)
	}
	if err != nil {
		v.found(group, codec.GarbageKey, codec.PoolsKey(group))
		return nil, nil
	}
	return changes, nil
}

// SavePoolChanges replaces the changes of a group's outside prefixes at run time.
func (v *valueStore) SavePoolChanges(ctx context.Context, group string, changes []PoolChange) error {
	key := codec.PoolsKey(group)
	text, words := []byte(nil), []any{"del", key}
	if len(changes) > 0 {
		var err error
		if text, err = codec.FormatPoolChanges(changes); err != nil {
			return fmt.Errorf("write %s: %w", key, err)
		}
		words = []any{"set", key, text}
	}
	err := v.trails.Replace(ctx, group, []trail.Value{{Key: key}}, func(e *audit.Entry, old []*string) {
		if old[0] != nil {
			e.Old = *old[0]
		}
		e.Group, e.New, e.Keys = group, string(text), changedPools(e.Old, changes)
		e.Count = len(e.Keys)
	}, words)
	if err != nil {
		return fmt.Errorf("write %s: %w", key, err)
	}
	return nil
}

// changedPools returns the prefixes whose changes differ from the stored ones.
func changedPools(stored string, changes []PoolChange) []string {
	before, _ := codec.ParsePoolChanges([]byte(stored)) // what cannot be read counts as none
	var prefixes []string
	for _, both := range [2][2][]PoolChange{{before, changes}, {changes, before}} {
		for _, c := range both[0] {
			same := slices.ContainsFunc(both[1], func(o PoolChange) bool { return o.Prefix == c.Prefix && o.Kind == c.Kind })
			if name := c.Prefix.String(); !same && !slices.Contains(prefixes, name) {
				prefixes = append(prefixes, name)
			}
		}
	}
	return prefixes
}
