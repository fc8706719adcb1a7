package subscriberdb

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/txn"
)

// Absence describes a record that is not in Redis.
type Absence struct {
	subscriber.Ending      // the reason, and the record as far as it is known
	Told              bool // the feed already has a Deleted entry for it
	Past              bool // the Deleted entry was trimmed from the feed
	Over              bool // its session is known to have ended, or the feed has the end

	hasEntry bool // Redis still has the online entry, which names the session of the record
}

// absences finds records that are not in Redis, and the traces of their sessions.
type absences struct {
	*shared
	feed         *changeFeed
	txns         *txn.Engine
	tombstoneTTL time.Duration
}

// FindMissing returns the given records that Redis no longer has, each with the reason of
// its end: from the feed; else, where the feed was trimmed, from the state of its session;
// else the given reason. ReasonNone has the same meaning as for AnnounceDeleted. Each
// record is given as its reader knows it, up to its Version; FindMissing adds the data that
// Redis still has of its session. It returns ErrSuspect when a group lost its marker.
func (ab *absences) FindMissing(ctx context.Context, known []subscriber.Record, why subscriber.Reason) ([]Absence, error) {
	var missing []Absence
	var doubtful []subscriber.Record // without an online entry
	doubts := map[subscriber.Key]Absence{}
	for len(known) > 0 {
		batch := known[:min(endBatch, len(known))]
		known = known[len(batch):]
		absent, err := ab.absent(ctx, batch, why)
		if err != nil {
			return nil, fmt.Errorf("look for missing records: %w", err)
		}
		for i, g := range absent {
			switch {
			case g == nil:
			case g.entry == "":
				doubtful = append(doubtful, batch[i])
				doubts[batch[i].Key] = g.absence(batch[i])
			default:
				missing = append(missing, g.absence(batch[i]))
			}
		}
	}
	told, err := ab.feed.endsTold(ctx, doubtful)
	if err != nil {
		return nil, fmt.Errorf("look for missing records: %w", err)
	}
	for i := range doubtful {
		a := doubts[doubtful[i].Key]
		if reason, ok := told[a.Record.Key]; ok {
			a.Reason, a.Told, a.Past, a.Over = reason, true, false, true
		}
		missing = append(missing, a)
	}
	if err := ab.remember(ctx, missing); err != nil {
		return nil, fmt.Errorf("look for missing records: %w", err)
	}
	return missing, nil
}

// absent returns an absentRecord for each record that is not in Redis, nil for the others.
func (ab *absences) absent(ctx context.Context, known []subscriber.Record, why subscriber.Reason) ([]*absentRecord, error) {
	absent, err := ab.gather(ctx, known, why)
	if err != nil {
		return nil, err
	}
	pipe := ab.client.Pipeline()
	records, markers := make([]*redis.IntCmd, len(absent)), make([]*redis.IntCmd, len(absent))
	for i, g := range absent {
		records[i] = pipe.Exists(ctx, codec.RecordKey(g.group.Name, g.record.Inside))
		markers[i] = pipe.Exists(ctx, codec.MarkerKey(g.group.Name))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, err
	}
	for i := range absent {
		if markers[i].Val() == 0 {
			return nil, ErrSuspect
		}
		if records[i].Val() != 0 {
			absent[i] = nil
		}
	}
	return absent, nil
}

// absence combines the record as its reader knows it with the newer data in Redis, if these
// are of the same session: another session may have had the address since.
func (g *absentRecord) absence(known subscriber.Record) Absence {
	r := known
	if g.entry != "" {
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
	state, err := codec.ParseState(g.session)
	if r.StartedAt.IsZero() && err == nil && state.Phase == subscriber.Open && state.Inside == r.Inside {
		r.StartedAt = state.Start
	}
	a := Absence{
		Ending: subscriber.Ending{Record: r, End: subscriber.End{Reason: g.reason}},
		Over:   err == nil && state.Phase == subscriber.Closed,
	}
	if a.hasEntry = g.entry != ""; !a.hasEntry && err == nil {
		a.recall(&state)
	}
	return a
}

// recall sets the reason of the end from the state of the record's session.
func (a *Absence) recall(state *subscriber.SessionState) {
	if why := endedFor(state, &a.Record); why != subscriber.ReasonNone {
		a.Reason, a.Past, a.Over = why, true, true
	}
}

// endedFor returns the reason for which a record is gone, from the state of its session.
// Every script that ends a record announces the end, removes the online entry and updates
// the session state in one step. ReasonNone: the state does not say, as where it is of an
// earlier session under the same identifier.
func endedFor(state *subscriber.SessionState, r *subscriber.Record) subscriber.Reason {
	switch {
	case beside(state, r):
		return subscriber.ReasonNone
	case state.Phase == subscriber.Open && state.Inside.IsValid() && state.Inside != r.Inside:
		return subscriber.ReasonSuperseded // it is at another address
	case state.Phase != subscriber.Closed || state.End.Before(r.StartedAt):
		return subscriber.ReasonNone
	case state.Reason == subscriber.ReasonNone:
		return subscriber.ReasonSuperseded // it went on in another group
	}
	return state.Reason
}

// remember searches all session states for the absences without a known end of which only
// the Acct-Session-Id and the address are known. These are the absences that a daemon finds
// by its bindings after it was down.
func (ab *absences) remember(ctx context.Context, missing []Absence) error {
	byGroup := map[string]map[string][]*Absence{} // by group and Acct-Session-Id
	for i := range missing {
		a := &missing[i]
		if a.Over || a.hasEntry || a.Record.NAS != "" || a.Record.AcctSessionID == "" {
			continue
		}
		byID := byGroup[a.Record.Group]
		if byID == nil {
			byID = map[string][]*Absence{}
			byGroup[a.Record.Group] = byID
		}
		byID[a.Record.AcctSessionID] = append(byID[a.Record.AcctSessionID], a)
	}
	for group, byID := range byGroup {
		if err := ab.searchSessions(ctx, group, byID); err != nil {
			return err
		}
	}
	return nil
}

// searchSessions scans the session states of a group for the Acct-Session-Ids.
func (ab *absences) searchSessions(ctx context.Context, group string, byID map[string][]*Absence) error {
	prefix := codec.SessionKeyPrefix(group)
	return ab.client.ScanKeys(ctx, prefix+"*", "string", func(server redis.UniversalClient, names []string) error {
		var keys []string
		var of [][]*Absence
		for _, name := range names {
			id, err := codec.ParseSessionRef(strings.TrimPrefix(name, prefix))
			if absences := byID[id.AcctSessionID]; err == nil && len(absences) > 0 {
				keys, of = append(keys, name), append(of, absences)
			}
		}
		if len(keys) == 0 {
			return nil
		}
		return readStates(ctx, server, keys, of)
	})
}

// readStates reads session states and sets the ends of the absences whose sessions they may
// be.
func readStates(ctx context.Context, server redis.UniversalClient, keys []string, of [][]*Absence) error {
	lines, err := server.MGet(ctx, keys...).Result()
	if err != nil {
		return fmt.Errorf("read sessions: %w", err)
	}
	for i, absences := range of {
		line, _ := lines[i].(string)
		state, err := codec.ParseState(line)
		if err != nil {
			continue
		}
		for _, a := range absences {
			earlier := state.End.Before(subscriber.VersionTime(a.Record.Version))
			if state.Phase == subscriber.Closed && state.Inside == a.Record.Inside && !earlier {
				a.recall(&state)
			}
		}
	}
	return nil
}
