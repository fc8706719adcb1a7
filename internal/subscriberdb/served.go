package subscriberdb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/guard"
)

// Served is what the NAT of a group is served as: a later start whose configuration
// lacks a part of it knows from it what there is to serve to its end.
type Served struct {
	Group string
	By    string // who serves it: node, namespace and table

	Inside, Outside     []netip.Prefix // drained ones included
	Draining            []netip.Prefix // of these, those no longer configured
	FirstPort, LastPort uint16
	BlockSize           int
	Hold, Grace         time.Duration
	GraceCauses         []uint32

	RecordTTL time.Duration // set by SaveServed
	Guard     guard.Limits  // set by SaveServed
}

// servedValue is the value of the key: JSON for people, too.
type servedValue struct {
	By          string         `json:"by"`
	Inside      []netip.Prefix `json:"inside"`
	Outside     []netip.Prefix `json:"outside"`
	Draining    []netip.Prefix `json:"draining,omitempty"`
	FirstPort   uint16         `json:"first_port"`
	LastPort    uint16         `json:"last_port"`
	BlockSize   int            `json:"block_size"`
	Hold        timeSpan       `json:"hold"`
	Grace       timeSpan       `json:"grace,omitzero"`
	GraceCauses []uint32       `json:"grace_causes,omitempty"`
	RecordTTL   timeSpan       `json:"record_ttl"`
	Guard       guardValue     `json:"guard"`
}

type guardValue struct {
	Minimum    int      `json:"minimum"`
	Removed    float64  `json:"removed"`
	Expired    float64  `json:"expired"`
	NASRestart float64  `json:"nas_restart"`
	Window     timeSpan `json:"window"`
}

// timeSpan is a duration that is written as a person would, such as 2m0s.
type timeSpan time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d timeSpan) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *timeSpan) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	*d = timeSpan(parsed)
	return err
}

func (s *Served) value() servedValue {
	return servedValue{
		By: s.By, Inside: s.Inside, Outside: s.Outside, Draining: s.Draining,
		FirstPort: s.FirstPort, LastPort: s.LastPort, BlockSize: s.BlockSize,
		Hold: timeSpan(s.Hold), Grace: timeSpan(s.Grace), GraceCauses: s.GraceCauses, RecordTTL: timeSpan(s.RecordTTL),
		Guard: guardValue{s.Guard.Minimum, s.Guard.Removed, s.Guard.Expired, s.Guard.NASRestart, timeSpan(s.Guard.Window)},
	}
}

func (v *servedValue) served(group string) Served {
	return Served{
		Group: group, By: v.By, Inside: v.Inside, Outside: v.Outside, Draining: v.Draining,
		FirstPort: v.FirstPort, LastPort: v.LastPort, BlockSize: v.BlockSize,
		Hold: time.Duration(v.Hold), Grace: time.Duration(v.Grace), GraceCauses: v.GraceCauses,
		RecordTTL: time.Duration(v.RecordTTL),
		Guard: guard.Limits{
			Minimum: v.Guard.Minimum, Removed: v.Guard.Removed, Expired: v.Guard.Expired,
			NASRestart: v.Guard.NASRestart, Window: time.Duration(v.Guard.Window),
		},
	}
}

// Served returns what groups are served as: those named, and all others that
// anybody serves or has to serve to the end. A named one that cannot be read is left out:
// its caller knows the configuration, and the bindings tell what drains besides. Another is
// an error, for its customers would be cut.
func (db *DB) Served(ctx context.Context, named []string) ([]Served, error) {
	groups, err := db.client.SMembers(ctx, groupsKey).Result()
	if err != nil {
		return nil, fmt.Errorf("list served groups: %w", err)
	}
	groups = append(groups, named...)
	slices.Sort(groups)
	var all []Served
	for _, group := range slices.Compact(groups) {
		text, err := db.client.Get(ctx, servedKey(group)).Bytes()
		if errors.Is(err, redis.Nil) {
			continue // a start, or an end, that did not come further
		}
		if unlessWrongType(err) != nil {
			return nil, fmt.Errorf("read %s: %w", servedKey(group), err)
		}
		var v servedValue
		if err == nil {
			err = json.Unmarshal(text, &v)
		}
		if err != nil {
			db.found(group, GarbageKey, servedKey(group))
			if slices.Contains(named, group) {
				continue
			}
			return nil, fmt.Errorf("%s cannot be read, so group %q, which is not configured, cannot be served to its end: configure it, or delete the key to cut its customers: %w",
				servedKey(group), group, err)
		}
		all = append(all, v.served(group))
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
	text, err := json.Marshal(s.value())
	if err != nil {
		return fmt.Errorf("write %s: %w", servedKey(s.Group), err)
	}
	if err := db.client.SAdd(ctx, groupsKey, s.Group).Err(); err != nil {
		return fmt.Errorf("list served group %q: %w", s.Group, err)
	}
	if err := db.client.Set(ctx, servedKey(s.Group), text, 0).Err(); err != nil {
		return fmt.Errorf("write %s: %w", servedKey(s.Group), err)
	}
	return nil
}

// ForgetServed forgets a group that has been served to its end, in the reverse order.
func (db *DB) ForgetServed(ctx context.Context, group string) error {
	if err := db.client.Del(ctx, servedKey(group)).Err(); err != nil {
		return fmt.Errorf("forget %s: %w", servedKey(group), err)
	}
	if err := db.client.SRem(ctx, groupsKey, group).Err(); err != nil {
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
