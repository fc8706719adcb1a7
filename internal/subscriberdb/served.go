package subscriberdb

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
)

// Served is what the NAT of a group is served as: a later start whose configuration
// lacks a part of it knows from it what there is to serve to its end. SaveServed sets its
// RecordTTL and Guard.
type Served = codec.Served

// Served returns what groups are served as: those named, and all others that
// anybody serves or has to serve to the end. A named one that cannot be read is left out:
// its caller knows the configuration, and the bindings tell what drains besides. Another is
// an error, for its customers would be cut.
func (db *DB) Served(ctx context.Context, named []string) ([]Served, error) {
	groups, err := db.client.SMembers(ctx, codec.GroupsKey).Result()
	if err != nil {
		return nil, fmt.Errorf("list served groups: %w", err)
	}
	groups = append(groups, named...)
	slices.Sort(groups)
	var all []Served
	for _, group := range slices.Compact(groups) {
		text, err := db.client.Get(ctx, codec.ServedKey(group)).Bytes()
		if errors.Is(err, redis.Nil) {
			continue // a start, or an end, that did not come further
		}
		if redisconn.UnlessWrongType(err) != nil {
			return nil, fmt.Errorf("read %s: %w", codec.ServedKey(group), err)
		}
		var served Served
		if err == nil {
			served, err = codec.ParseServed(group, text)
		}
		if err != nil {
			db.found(group, GarbageKey, codec.ServedKey(group))
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

// SaveServed writes what a group is served as. The group is listed first: whoever
// looks for groups finds it as soon as there is anything to find.
func (db *DB) SaveServed(ctx context.Context, s Served) error {
	g, err := db.group(s.Group)
	if err != nil {
		return err
	}
	s.RecordTTL, s.Guard = g.RecordTTL, g.Guard
	text, err := codec.FormatServed(&s)
	if err != nil {
		return fmt.Errorf("write %s: %w", codec.ServedKey(s.Group), err)
	}
	if err := db.client.SAdd(ctx, codec.GroupsKey, s.Group).Err(); err != nil {
		return fmt.Errorf("list served group %q: %w", s.Group, err)
	}
	if err := db.client.Set(ctx, codec.ServedKey(s.Group), text, 0).Err(); err != nil {
		return fmt.Errorf("write %s: %w", codec.ServedKey(s.Group), err)
	}
	return nil
}

// ForgetServed forgets a group that has been served to its end, in the reverse order.
func (db *DB) ForgetServed(ctx context.Context, group string) error {
	if err := db.client.Del(ctx, codec.ServedKey(group)).Err(); err != nil {
		return fmt.Errorf("forget %s: %w", codec.ServedKey(group), err)
	}
	if err := db.client.SRem(ctx, codec.GroupsKey, group).Err(); err != nil {
		return fmt.Errorf("forget served group %q: %w", group, err)
	}
	return nil
}

// Groups returns the groups in force.
func (db *DB) Groups() []Group {
	if t := db.groups.Load(); t != nil {
		return slices.Clone(t.groups)
	}
	return nil
}

// Serve adds groups, or inside prefixes to those that there are.
func (db *DB) Serve(more []Group) error {
	return db.ChangeGroups(func(groups []Group) []Group {
		for _, g := range more {
			i := slices.IndexFunc(groups, func(have Group) bool { return have.Name == g.Name })
			if i < 0 {
				if len(groups) > 0 {
					g.ClientTTL = groups[0].ClientTTL // the same in all groups
				}
				groups = append(groups, g)
				continue
			}
			inside := append(slices.Clone(groups[i].Inside), g.Inside...)
			slices.SortFunc(inside, netip.Prefix.Compare)
			groups[i].Inside = slices.Compact(inside)
		}
		return groups
	})
}

// Unserve takes a group out that was served to its end.
func (db *DB) Unserve(group string) error {
	return db.ChangeGroups(func(groups []Group) []Group {
		return slices.DeleteFunc(groups, func(g Group) bool { return g.Name == group })
	})
}
