package subscriberdb

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// Absence is a record that is not there.
type Absence struct {
	subscriber.Ending      // why, and the record as far as it is known
	Told              bool // the feed tells its end already
	Over              bool // its session is known to have ended, or told
}

// Missing returns those of the records that are not in Redis: with the reason that
// Bury would give, for its meaning of why, or with the one that the feed tells. A
// record is given as its reader knows it, up to its Version; what Redis remembers
// of its session is added to it. It returns ErrSuspect when a marker is missing.
func (db *DB) Missing(ctx context.Context, known []subscriber.Record, why subscriber.Reason) ([]Absence, error) {
	var missing []Absence
	var doubtful []subscriber.Record // of whom nothing is remembered
	doubts := map[subscriber.Key]Absence{}
	for len(known) > 0 {
		batch := known[:min(endBatch, len(known))]
		known = known[len(batch):]
		graves, err := db.absent(ctx, batch, why)
		if err != nil {
			return nil, fmt.Errorf("look for missing records: %w", err)
		}
		for i, g := range graves {
			switch {
			case g == nil:
			case g.witness == "":
				doubtful = append(doubtful, batch[i])
				doubts[batch[i].Key] = g.absence(batch[i])
			default:
				missing = append(missing, g.absence(batch[i]))
			}
		}
	}
	told, err := db.endsTold(ctx, doubtful)
	if err != nil {
		return nil, fmt.Errorf("look for missing records: %w", err)
	}
	for i := range doubtful {
		a := doubts[doubtful[i].Key]
		if reason, ok := told[a.Record.Key]; ok {
			a.Reason, a.Told, a.Over = reason, true, true
		}
		missing = append(missing, a)
	}
	return missing, nil
}

// absent returns a grave for each record that is not there, nil for the others.
func (db *DB) absent(ctx context.Context, known []subscriber.Record, why subscriber.Reason) ([]*grave, error) {
	keys := make([]subscriber.Key, len(known))
	for i := range known {
		keys[i] = known[i].Key
	}
	graves, err := db.graves(ctx, keys, why)
	if err != nil {
		return nil, err
	}
	pipe := db.client.Pipeline()
	records, markers := make([]*redis.IntCmd, len(graves)), make([]*redis.IntCmd, len(graves))
	for i, g := range graves {
		records[i] = pipe.Exists(ctx, recordKey(g.group.Name, g.record.Inside))
		markers[i] = pipe.Exists(ctx, markerKey(g.group.Name))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, err
	}
	for i := range graves {
		if markers[i].Val() == 0 {
			return nil, ErrSuspect
		}
		if records[i].Val() != 0 {
			graves[i] = nil
		}
	}
	return graves, nil
}

// absence is how the record of the grave ended, as it was known and as far as
// Redis knows better: another session may have had the address since.
func (g *grave) absence(known subscriber.Record) Absence {
	r := known
	if g.witness != "" {
		switch same := r.SameSession(&g.record); {
		case !same:
			r = g.record
		case r.NAS == "":
			r.SessionID = g.record.SessionID
		}
		if r.UserName == "" {
			r.UserName = g.record.UserName
		}
	}
	state, err := parseState(g.session)
	if r.StartedAt.IsZero() && err == nil && state.Phase == subscriber.Open && state.Inside == r.Inside {
		r.StartedAt = state.Start
	}
	return Absence{
		Ending: subscriber.Ending{Record: r, Reason: g.reason},
		Over:   err == nil && state.Phase == subscriber.Closed,
	}
}

// endsTold returns the ends of the records that the feed tells already, behind
// their versions. It reads the feed backwards, as far as need be.
func (db *DB) endsTold(ctx context.Context, records []subscriber.Record) (map[subscriber.Key]subscriber.Reason, error) {
	byGroup := map[string]map[netip.Addr]string{}
	for i := range records {
		r := &records[i]
		if byGroup[r.Group] == nil {
			byGroup[r.Group] = map[netip.Addr]string{}
		}
		byGroup[r.Group][r.Inside] = r.Version
	}
	told := map[subscriber.Key]subscriber.Reason{}
	for group, versions := range byGroup {
		if err := db.searchEnds(ctx, group, versions, told); err != nil {
			return nil, err
		}
	}
	return told, nil
}

// searchEnds looks for the last change of each address, and takes it out of the
// versions once it is found.
func (db *DB) searchEnds(ctx context.Context, group string, versions map[netip.Addr]string, told map[subscriber.Key]subscriber.Reason) error {
	for end := "+"; len(versions) > 0; {
		entries, err := db.client.XRevRangeN(ctx, feedKey(group), end, "-", announcedWithin).Result()
		if err != nil {
			return err
		}
		for i := range entries {
			for _, c := range parseEntries(group, entries[i:i+1], nil) {
				inside := c.Record.Inside()
				version, wanted := versions[inside]
				if !wanted {
					continue
				}
				delete(versions, inside)
				if c.Kind == subscriber.Deleted && c.ID.Compare(subscriber.ParseVersion(version)) > 0 {
					told[c.Record.Key()] = c.Reason
				}
			}
		}
		if len(entries) < announcedWithin {
			return nil
		}
		end = "(" + entries[len(entries)-1].ID
	}
	return nil
}
