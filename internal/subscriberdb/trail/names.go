package trail

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/audit"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
)

// Trails returns the names of all trails, in order: that of the daemons, those of the groups in
// force, and those that have entries of other groups. With an error the last are left out.
func (s *Store) Trails(ctx context.Context) ([]string, error) {
	kept, err := s.keptNames(ctx)
	names := append(s.inForce(), kept...)
	slices.Sort(names)
	return slices.Compact(names), err
}

// inForce returns the names of the trails that an entry may be appended to.
func (s *Store) inForce() []string { return append(s.o.Trails(), audit.DaemonTrail) }

// keptNames returns the stored names of trails.
func (s *Store) keptNames(ctx context.Context) ([]string, error) {
	names, err := s.o.Client.SMembers(ctx, codec.TrailsKey).Result()
	if redisconn.UnlessWrongType(err) != nil {
		return nil, fmt.Errorf("read %s: %w", codec.TrailsKey, err)
	}
	return slices.DeleteFunc(names, func(name string) bool { // of others: they are no part of a key
		return name != audit.DaemonTrail && !codec.ValidGroupName(name)
	}), nil
}

// keepName stores the name of a trail.
func (s *Store) keepName(ctx context.Context, trail string) error {
	_, err := s.o.Client.Call(ctx, nameScript, []string{codec.TrailsKey}, trail)
	if redisconn.IsWrongType(err) {
		err = fmt.Errorf("%w: %w", audit.ErrUnwritten, err)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", codec.TrailsKey, err)
	}
	return nil
}

// nameScript stores the name of a trail. It begins with a removal, so that a Redis without free
// memory executes it (see package txn): an entry follows, about the end of a subscriber.
//
// KEYS: 1 the set of names. ARGV: 1 the name. Returns 1 if it is new.
var nameScript = redis.NewScript(`
local removed = redis.pcall('SREM', KEYS[1], '')
if type(removed) == 'table' then return redis.error_reply(removed.err) end
return redis.call('SADD', KEYS[1], ARGV[1])
`)

// mendNames stores the names of trails in force that have entries, as the set may have been
// lost. It removes those whose trail is gone, with the positions of the sinks.
func (s *Store) mendNames(ctx context.Context) error {
	kept, err := s.keptNames(ctx)
	if err != nil {
		return err
	}
	inForce := s.inForce()
	var errs []error
	for _, trail := range inForce {
		if slices.Contains(kept, trail) {
			continue
		}
		there, err := s.exists(ctx, trail)
		if err == nil && there {
			err = s.keepName(ctx, trail)
		}
		errs = append(errs, err)
	}
	for _, trail := range kept {
		if slices.Contains(inForce, trail) { // an entry may be about to be appended
			continue
		}
		there, err := s.exists(ctx, trail)
		if err == nil && !there {
			err = errors.Join(s.o.Client.Del(ctx, codec.AuditSinksKey(trail)).Err(), s.o.Client.SRem(ctx, codec.TrailsKey, trail).Err())
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// exists reports whether anything of a trail is there.
func (s *Store) exists(ctx context.Context, trail string) (bool, error) {
	n, err := s.o.Client.Exists(ctx, codec.AuditKey(trail), codec.AuditHeadKey(trail)).Result()
	if err != nil {
		return false, fmt.Errorf("look for %s: %w", codec.AuditKey(trail), err)
	}
	return n > 0, nil
}
