package subscriber

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/testenv"
)

// network is a database of several groups in memory. Each event is decided in
// every group, as in the store.
type network struct {
	groups []*world // the last one is the reserved group
	clocks map[SessionID]*Clock
	same   map[SessionID]SessionID // NASes that are known by another name
	trace  []string
}

// networkAddresses are of the first two groups, and of none.
var networkAddresses = []netip.Addr{
	netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("100.64.0.2"),
	netip.MustParseAddr("100.70.0.1"), netip.MustParseAddr("100.70.0.2"), netip.MustParseAddr("203.0.113.1"),
}

const reservedGroup = 2

func newNetwork() *network {
	return &network{
		groups: []*world{newWorld(), newWorld(), newWorld()},
		clocks: map[SessionID]*Clock{}, same: map[SessionID]SessionID{},
	}
}

// groupOf is the group of an address; negative for none.
func groupOf(a netip.Addr) int {
	switch {
	case a.Is4() && a.As4()[0] == 100 && a.As4()[1] == 64:
		return 0
	case a.Is4() && a.As4()[0] == 100 && a.As4()[1] == 70:
		return 1
	}
	return -1
}

// tell applies the event in every group, and returns the verdicts.
func (n *network) tell(t *testing.T, ev Event) (verdicts [3]Verdict) {
	t.Helper()
	nas := ev.NASOnly()
	if n.clocks[nas] == nil {
		n.clocks[nas] = new(Clock)
	}
	n.clocks[nas].Place(&ev)
	if to, ok := n.same[nas]; ok {
		ev.Client, ev.NAS = to.Client, to.NAS
	}
	if len(ev.Addresses) > 1 {
		ev.Leg = ev.Inside
	}
	own, restart := groupOf(ev.Inside), ev.Kind >= EventAccountingOn
	for g := range n.groups {
		scope := Elsewhere
		switch {
		case g == own:
			scope = Here
		case g == reservedGroup && (restart || own >= 0 && ev.Kind == EventStart):
			continue
		case g == reservedGroup && own < 0:
			scope = Recorded
		case !ev.Inside.IsValid():
			scope = NoAddress
		}
		verdicts[g] = n.step(t, g, scope, ev)
	}
	n.trace = append(n.trace, fmt.Sprintf("%v (came %v, delay %v): kind %d of %s/%s, user %q, %v, count %v: %v",
		ev.At.Sub(t0), ev.Arrival.Sub(t0), ev.Delay, ev.Kind, ev.NAS, ev.AcctSessionID, ev.UserName, ev.Inside, ev.SessionTime, verdicts))
	if restart {
		n.groups[0].sweep()
		n.groups[1].sweep()
	}
	return verdicts
}

func (n *network) step(t *testing.T, g int, scope Scope, ev Event) Verdict {
	t.Helper()
	w := n.groups[g]
	v := n.view(g, scope, &ev)
	if id := Identify(v, &ev); id != ev.SessionID {
		if from, to := ev.NASOnly(), id.NASOnly(); from != to && n.same[to] == (SessionID{}) {
			n.same[from] = to
		}
		ev.SessionID = id
		v = n.view(g, scope, &ev)
	}
	if scope != Here {
		ev.Inside = netip.Addr{}
	}
	d := Decide(v, ev)
	if changed := d.changesOthers(v); changed != "" {
		t.Errorf("group %d: %s by an event of client %s: %+v", g, changed, ev.Client, d)
	}
	w.carryOut(t, ev, d)
	return d.Verdict
}

// changesOthers describes the decision's effect on a session that another
// client reports, "" for none. Identify has settled before which session is the
// event's own.
func (d *Decision) changesOthers(v View) string {
	if !v.HolderApart || v.Holder.RemovalHeld != ReasonNone {
		return ""
	}
	for _, e := range d.Delete {
		if e.Record.Inside == v.Holder.Inside {
			return "its record ends"
		}
	}
	if d.Put != nil && d.Put.Inside == v.Holder.Inside {
		return "its record is written"
	}
	return ""
}

func (n *network) view(g int, scope Scope, ev *Event) View {
	w := n.groups[g]
	v := View{Group: fmt.Sprint("g", g), Scope: scope, Session: w.sessions[ev.SessionID]}
	if g != reservedGroup && ev.Kind != EventStop {
		v.Restart = w.restarts[ev.NASOnly()]
	}
	if r, ok := w.records[ev.Inside]; ok && scope == Here {
		v.Holder, v.HolderApart = &r, r.Client != "" && r.Client != ev.Client
	}
	if r, ok := w.records[v.Session.Inside]; ok && v.Session.Phase == Open && (scope != Here || v.Session.Inside != ev.Inside) {
		v.Current = &r
	}
	return v
}

func (n *network) fail(t *testing.T, seed uint64, format string, args ...any) {
	t.Helper()
	for _, line := range n.trace {
		t.Log(line)
	}
	t.Fatalf("seed %d: "+format, append([]any{seed}, args...)...)
}

// check verifies that a record has its session, open at the record's address,
// and that no session has two records in a group.
func (n *network) check(t *testing.T, seed uint64) {
	t.Helper()
	for g, w := range n.groups[:reservedGroup] {
		at := map[SessionID]netip.Addr{}
		for inside, r := range w.records {
			if r.SessionID == (SessionID{}) || len(r.Links) > 0 { // a multilink goes by its first link, which may have ended
				continue
			}
			if s := w.sessions[r.SessionID]; s.Phase != Open || s.Inside != inside {
				n.fail(t, seed, "group %d: record %+v of session %+v", g, r, s)
			}
			if other, two := at[r.SessionID]; two {
				n.fail(t, seed, "group %d: %v is at %v and %v", g, r.SessionID, inside, other)
			}
			at[r.SessionID] = inside
		}
	}
}

// TestWildNetwork applies random events: through two clients, with services,
// multilinks, sessions of two addresses or none, restarts of all policies, and
// records that others write, delete, hold or restore. No record arises of a
// session that is elsewhere or over.
func TestWildNetwork(t *testing.T) {
	for seed := range uint64(testenv.Walks(400)) {
		rng := rand.New(rand.NewPCG(seed, 99))
		n, now := newNetwork(), t0
		for range 80 {
			now = now.Add(time.Duration(rng.IntN(300)) * time.Second)
			switch rng.IntN(12) {
			case 0:
				n.wildWrite(rng, now)
			case 1:
				n.tell(t, Event{
					Kind: EventAccountingOn, SessionID: SessionID{Client: fmt.Sprint("bng", rng.IntN(2)), NAS: "nas0"},
					Arrival: now, Delay: -1, SessionTime: -1, Sender: Sender{Restarts: RestartPolicy(rng.IntN(3))},
				})
			default:
				n.tell(t, wildPacket(rng, now))
			}
			n.check(t, seed)
		}
	}
}

func wildPacket(rng *rand.Rand, now time.Time) Event {
	ev := Event{
		Kind: EventStart + EventKind(rng.IntN(3)),
		SessionID: SessionID{
			Client: fmt.Sprint("bng", rng.IntN(2)), NAS: fmt.Sprint("nas", rng.IntN(2)), AcctSessionID: fmt.Sprint(rng.IntN(4)),
		},
		UserName: []string{"", "alice", "bob"}[rng.IntN(3)],
		Inside:   append(networkAddresses[:3:3], networkAddresses[4], netip.Addr{})[rng.IntN(5)], Arrival: now, Delay: -1,
		SessionTime: time.Duration(rng.IntN(4000)-1) * time.Second,
	}
	if rng.IntN(2) == 0 {
		ev.Stamp = now.Add(time.Duration(rng.IntN(600)-500) * time.Second)
	}
	if rng.IntN(5) == 0 {
		ev.Delay = time.Duration(rng.IntN(900)) * time.Second
	}
	switch rng.IntN(8) {
	case 0:
		ev.MultiSessionID, ev.LinkCount = fmt.Sprint(rng.IntN(4)), uint32(rng.IntN(3))
	case 1:
		ev.Service, ev.CountServices = true, rng.IntN(2) == 0
	case 2:
		ev.MultiSessionID, ev.CountServices = fmt.Sprint(rng.IntN(4)), true
	case 3:
		if ev.Inside.IsValid() {
			ev.Addresses = []netip.Addr{ev.Inside, networkAddresses[3]}
		}
	}
	return ev
}

// wildWrite changes a record otherwise than by accounting.
func (n *network) wildWrite(rng *rand.Rand, now time.Time) {
	g := rng.IntN(reservedGroup)
	w, inside := n.groups[g], networkAddresses[2*g+rng.IntN(2)]
	n.trace = append(n.trace, fmt.Sprintf("%v: somebody writes at %v", now.Sub(t0), inside))
	r, stands := w.records[inside]
	switch rng.IntN(4) {
	case 0:
		var holder *Record
		if stands {
			holder = &r
		}
		d := DecidePut(holder, Record{Key: Key{fmt.Sprint("g", g), inside}, UserName: "alice", StartedAt: now, UpdatedAt: now})
		for _, e := range d.Delete {
			w.end(e.Record, e.Reason, now)
		}
		w.write(*d.Put, now)
	case 1:
		if stands {
			w.end(r, []Reason{ReasonAdmin, ReasonExpired, ReasonRemovedInDatabase}[rng.IntN(3)], now)
		}
	case 2:
		if stands {
			r.RemovalHeld = ReasonNASRestart
			w.write(r, now)
		}
	case 3: // the database was lost, and one binding gives back its record
		w.records, w.sessions = map[netip.Addr]Record{}, map[SessionID]SessionState{}
		if !stands {
			r = Record{Key: Key{fmt.Sprint("g", g), inside}, UserName: []string{"", "bob"}[rng.IntN(2)]}
		} else if r.NAS != "" {
			w.sessions[r.SessionID] = OpenState(&r)
		}
		r.Unconfirmed = true
		w.write(r, now)
	}
}

// write puts a record otherwise than by accounting.
func (w *world) write(r Record, now time.Time) {
	w.version++
	r.Version = fmt.Sprintf("%d-%d", now.UnixMilli(), w.version)
	w.records[r.Inside] = r
}
