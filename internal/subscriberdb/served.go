package subscriberdb

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
)

// Served is the configuration that a group's NAT was last served with. A later start
// compares it with its configuration to find the parts to drain. SaveServed sets its
// RecordTTL and Guard.
type Served = codec.Served

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
	if err := v.client.Del(ctx, codec.ServedKey(group)).Err(); err != nil {
		return fmt.Errorf("forget %s: %w", codec.ServedKey(group), err)
	}
	if err := v.client.SRem(ctx, codec.GroupsKey, group).Err(); err != nil {
		return fmt.Errorf("forget served group %q: %w", group, err)
	}
	return nil
}
