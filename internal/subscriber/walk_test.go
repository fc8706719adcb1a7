package subscriber

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/testenv"
)

// world is a database in memory: it applies decisions and checks after each
// that they fit its state.
type world struct {
	records  map[netip.Addr]Record
	sessions map[SessionID]SessionState
	restarts map[SessionID]Restart // by NAS
	version  int
	scratch  Scratch // of all decisions
}

func newWorld() *world {
	return &world{records: map[netip.Addr]Record{}, sessions: map[SessionID]SessionState{}, restarts: map[SessionID]Restart{}}
}

// view is the data around the event, under the identity by which the database
// knows the event's session.
func (w *world) view(ev Event) (View, Event) {
	v := w.viewOf(ev)
	if id := Identify(v, &ev); id != ev.SessionID {
		ev.SessionID = id
		return w.viewOf(ev), ev
	}
	return v, ev
}

func (w *world) viewOf(ev Event) View {
	v := View{Group: "g", Session: w.sessions[ev.SessionID], Restart: w.restarts[ev.NASOnly()]}
	if !ev.Inside.IsValid() {
		v.Scope = NoAddress
	}
	if r, ok := w.records[ev.Inside]; ok {
		v.Holder, v.HolderApart = &r, r.Client != "" && r.Client != ev.Client
	}
	if v.Session.Phase == Open && v.Session.Inside != ev.Inside {
		if r, ok := w.records[v.Session.Inside]; ok {
			v.Current = &r
		}
	}
	return v
}

func (w *world) apply(t *testing.T, ev Event) Decision {
	t.Helper()
	v, ev := w.view(ev)
	d := Decide(v, ev)
	if again := w.scratch.Decide(v, ev); !reflect.DeepEqual(again, d) {
		t.Fatalf("%+v: %+v, in used memory %+v", ev, d, again)
	}
	w.carryOut(t, ev, d)
	return d
}

// carryOut applies a decision's writes.
func (w *world) carryOut(t *testing.T, ev Event, d Decision) {
	t.Helper()
	for _, e := range d.Delete {
		if _, ok := w.records[e.Record.Inside]; !ok {
			t.Fatalf("%+v deletes a record that is not there: %+v", ev, e)
		}
		delete(w.records, e.Record.Inside)
		if e.Tombstone != nil {
			tombstone, stood := *e.Tombstone, w.sessions[e.Record.SessionID]
			tombstone.Stamp, tombstone.Digest = stood.Stamp, stood.Digest
			w.sessions[e.Record.SessionID] = tombstone
		}
	}
	if d.Put != nil {
		if _, stands := w.records[d.Put.Inside]; stands == d.Created {
			t.Fatalf("%+v: created %v over a record: %v", ev, d.Created, stands)
		}
		w.version++
		d.Put.Version = fmt.Sprintf("%d-0", w.version)
		w.records[d.Put.Inside] = *d.Put
	}
	if d.Session != nil {
		w.sessions[ev.SessionID] = *d.Session
	}
	if d.Restart != nil {
		w.version++
		d.Restart.ID = fmt.Sprintf("%d-0", w.version)
		w.restarts[ev.NASOnly()] = *d.Restart
	}
}

// end deletes a record otherwise than by its own accounting.
func (w *world) end(r Record, why Reason, at time.Time) {
	e := NewEnding(r, why, at)
	delete(w.records, r.Inside)
	if e.Tombstone != nil {
		w.sessions[r.SessionID] = *e.Tombstone
	}
}

// sweep ends the sessions that the restarts ended.
func (w *world) sweep() {
	for _, r := range w.records {
		if restart := w.restarts[r.NASOnly()]; restart.Ends(&r) {
			w.end(r, ReasonNASRestart, restart.At)
		}
	}
}

// check verifies that every record has its open session, and every session that
// is open at an address its record.
func (w *world) check(t *testing.T) {
	t.Helper()
	for inside, r := range w.records {
		if len(r.Links) > 0 {
			continue // its sessions are checked below
		}
		s := w.sessions[r.SessionID]
		if s.Phase != Open || s.Inside != inside || !s.Start.Equal(r.StartedAt) {
			t.Fatalf("record %+v of session %+v", r, s)
		}
	}
	for id, s := range w.sessions {
		if r, ok := w.records[s.Inside]; s.Phase == Open && s.Inside.IsValid() && (!ok || !r.belongsTo(id)) {
			t.Fatalf("session %v %+v without its record", id, s)
		}
	}
}

// history is a true history: subscribers come and go on few addresses, each
// session with an identifier of its own. It returns the events in true order,
// and the sessions online at the end.
func history(rng *rand.Rand, addresses, steps int) ([]Event, map[netip.Addr]SessionID) {
	online := map[netip.Addr]SessionID{}
	began := map[netip.Addr]time.Time{}
	var events []Event
	now := t0
	for i := range steps {
		now = now.Add(time.Duration(10+rng.IntN(600)) * time.Second)
		inside := netip.AddrFrom4([4]byte{100, 64, 0, byte(rng.IntN(addresses))})
		id, up := online[inside]
		ev := Event{SessionID: id, Inside: inside, At: now, Stamp: now, SessionTime: now.Sub(began[inside]), UserName: "u-" + id.AcctSessionID}
		switch {
		case up && rng.IntN(3) > 0:
			ev.Kind = EventInterim
		case up:
			ev.Kind = EventStop
			delete(online, inside)
		default:
			id = SessionID{Client: "bng1", NAS: "nas1", AcctSessionID: fmt.Sprint(i)}
			ev.Kind, ev.SessionID, ev.SessionTime, ev.UserName = EventStart, id, -1, "u-"+id.AcctSessionID
			online[inside], began[inside] = id, now
		}
		events = append(events, ev)
	}
	return events, online
}

// deliver shuffles the events and doubles some.
func deliver(rng *rand.Rand, events []Event) []Event {
	var late []Event
	for _, ev := range events {
		late = append(late, ev)
		if rng.IntN(4) == 0 {
			late = append(late, ev)
		}
	}
	rng.Shuffle(len(late), func(i, j int) { late[i], late[j] = late[j], late[i] })
	return late
}

// TestRandomHistories_I4: in any order of arrival, and with any repetitions,
// the database shows exactly the online sessions at the end.
func TestRandomHistories_I4(t *testing.T) {
	for seed := range uint64(testenv.Walks(3000)) {
		rng := rand.New(rand.NewPCG(seed, 1))
		events, truth := history(rng, 1+rng.IntN(4), 2+rng.IntN(40))
		w := newWorld()
		for _, ev := range deliver(rng, events) {
			w.apply(t, ev)
			w.check(t)
		}
		compare(t, seed, w, truth)
	}
}

func compare(t *testing.T, seed uint64, w *world, truth map[netip.Addr]SessionID) {
	t.Helper()
	if len(w.records) != len(truth) {
		t.Fatalf("seed %d: online %v, truly %v", seed, w.records, truth)
	}
	for inside, id := range truth {
		if w.records[inside].SessionID != id {
			t.Fatalf("seed %d: %v is %v, truly %v", seed, inside, w.records[inside].SessionID, id)
		}
	}
}

// TestDecideTwice_ACCT15: an event that is applied again changes only the
// record's version.
func TestDecideTwice_ACCT15(t *testing.T) {
	for seed := range uint64(testenv.Walks(500)) {
		rng := rand.New(rand.NewPCG(seed, 2))
		events, _ := history(rng, 2, 30)
		w := newWorld()
		for _, ev := range deliver(rng, events) {
			w.apply(t, ev)
			if d := w.apply(t, ev); len(d.Delete) > 0 || d.Created {
				t.Fatalf("seed %d: %+v again: %+v", seed, ev, d)
			}
		}
	}
}

// TestWildEvents: no event, however odd, breaks the invariants of the records.
func TestWildEvents(t *testing.T) {
	for seed := range uint64(testenv.Walks(2000)) {
		rng := rand.New(rand.NewPCG(seed, 3))
		w := newWorld()
		for range 60 {
			w.apply(t, wildEvent(rng))
			w.check(t)
		}
	}
}

func wildEvent(rng *rand.Rand) Event {
	ev := Event{
		Kind:        EventStart + EventKind(rng.IntN(3)),
		SessionID:   SessionID{NAS: "nas1", AcctSessionID: fmt.Sprint(rng.IntN(3))},
		UserName:    []string{"", "alice", "bob"}[rng.IntN(3)],
		Inside:      netip.AddrFrom4([4]byte{100, 64, 0, byte(rng.IntN(3))}),
		At:          t0.Add(time.Duration(rng.IntN(600)) * time.Second),
		SessionTime: time.Duration(rng.IntN(300)-1) * time.Second,
	}
	if rng.IntN(2) == 0 {
		ev.Stamp = ev.At
	}
	if rng.IntN(5) == 0 {
		ev.Inside = netip.Addr{}
	}
	return ev
}
