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

// Absence is a record that is not there.
type Absence struct {
	subscriber.Ending      // why, and the record as far as it is known
	Told              bool // the feed tells its end already
	Past              bool // the feed told its end, so far back that it is there no more
	Over              bool // its session is known to have ended, or its end is told

	hasEntry bool // Redis still has the online entry, which says whose record stood there
}

// absences finds records that are not there, and the traces of their sessions.
type absences struct {
	*shared
	feed         *changeFeed
	txns         *txn.Engine
	tombstoneTTL time.Duration
}

// FindMissing returns the given records that Redis no longer has, each with why it ended: as
// the feed says, or the state of its session where the feed told it too far back; else for the
// given reason, of which ReasonNone means the same as to AnnounceDeleted. A record is given as
// its reader knows it, up to its Version; what Redis still knows of its session is added. It
// returns ErrSuspect when a group lost its marker.
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

// absent returns an absentRecord for each record that is not there, nil for the others.
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

// absence is how the record of the absentRecord ended, as it was known and as far as
// Redis knows better: another session may have had the address since.
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
		Ending: subscriber.Ending{Record: r, Reason: g.reason},
		Over:   err == nil && state.Phase == subscriber.Closed,
	}
	if a.hasEntry = g.entry != ""; !a.hasEntry && err == nil {
		a.recall(&state)
	}
	return a
}

// recall takes over the end that the state of the record's session tells.
func (a *Absence) recall(state *subscriber.SessionState) {
	if why := endedFor(state, &a.Record); why != subscriber.ReasonNone {
		a.Reason, a.Past, a.Over = why, true, true
	}
}

// endedFor tells by the state of a record's session why the record is gone:
// whatever ends a record announces that, takes its online entry away and says so of the
// session, in one step. It returns ReasonNone where that is not known, as by the
// state of an earlier session under the same identifier.
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

// remember looks among all that is remembered of sessions for those absences that
// nobody told of, and of whose session no more is known than its Acct-Session-Id and
// its address, as a daemon knows them by its bindings after it was away.
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

// searchSessions walks over the session states of a group.
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

// readStates tells absences what the states say that may be of their sessions.
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
