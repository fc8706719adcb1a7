package subscriber

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/testenv"
)

// TestLateCopiesHarmNobody_I4 delivers packets again after up to hours, from
// NASes with steady clocks or with a counted delay. The NASes restart, use
// their identifiers again, lose Starts and Stops, and move sessions. A session
// that is online and known stays so, except for two undecidable histories
// (docs/accounting-rules.md): a late Start at an address that went to another
// session of the same NAS, and a late Accounting-On. The next Interim corrects
// those. At the end the database shows exactly the sessions that are online.
func TestLateCopiesHarmNobody_I4(t *testing.T) {
	late, doubtful := 0, 0
	for seed := range uint64(testenv.Walks(250)) {
		c := newCountry(t, seed)
		for range 60 {
			c.happen(t)
			if c.keepClocks(t); c.rng.IntN(2) == 0 {
				late++
				doubtful += c.repeat(t)
			}
			c.net.check(t, seed)
		}
		c.reportAll(t)
	}
	t.Logf("%d of %d late packets cost a session its address until its next Interim", doubtful, late)
}

// country holds the true state of three NASes and their sessions.
type country struct {
	seed    uint64
	rng     *rand.Rand
	net     *network
	now     time.Time
	online  map[netip.Addr]*subscription
	sent    []Event
	users   int
	next    [3]int           // the NAS's next identifier
	ahead   [3]time.Duration // of the NAS's clock
	stamped [3]bool          // the NAS stamps its packets, else it counts delays
}

// subscription is the true state of a session.
type subscription struct {
	nas      int
	id, user string
	inside   netip.Addr
	began    time.Time
	moved    bool
}

func newCountry(t *testing.T, seed uint64) *country {
	c := &country{
		seed: seed, rng: rand.New(rand.NewPCG(seed, 77)), net: newNetwork(), now: t0,
		online: map[netip.Addr]*subscription{},
	}
	for i := range c.stamped {
		c.stamped[i], c.ahead[i] = c.rng.IntN(2) == 0, time.Duration(c.rng.IntN(20)-10)*time.Hour
	}
	c.keepClocks(t)
	return c
}

// keepClocks sends a prompt packet of each NAS, of a session without effect.
func (c *country) keepClocks(t *testing.T) {
	for i := range c.stamped {
		c.now = c.now.Add(time.Second)
		c.net.tell(t, c.packet(EventInterim, &subscription{nas: i, id: "w", inside: netip.MustParseAddr("203.0.113.9"), began: t0}))
	}
}

func (c *country) packet(kind EventKind, s *subscription) Event {
	ev := Event{
		Kind: kind, SessionID: SessionID{Client: "bng", NAS: fmt.Sprint("nas", s.nas), AcctSessionID: s.id},
		UserName: s.user, Inside: s.inside, Arrival: c.now, SessionTime: -1,
	}
	if kind == EventInterim || kind == EventStop {
		ev.SessionTime = c.now.Sub(s.began)
	}
	if c.stamped[s.nas] {
		ev.Stamp, ev.Delay = c.now.Add(c.ahead[s.nas]), -1
	}
	return ev
}

// send delivers a packet promptly.
func (c *country) send(t *testing.T, kind EventKind, s *subscription) {
	ev := c.packet(kind, s)
	c.sent = append(c.sent, ev)
	c.net.tell(t, ev)
}

// happen makes the next true change.
func (c *country) happen(t *testing.T) {
	c.now = c.now.Add(time.Duration(5+c.rng.IntN(600)) * time.Second)
	inside := networkAddresses[c.rng.IntN(len(networkAddresses))]
	s := c.online[inside]
	switch dice := c.rng.IntN(10); {
	case dice == 0:
		c.restart(t, c.rng.IntN(3))
	case s == nil || dice == 1: // the Stop of the previous session was lost
		c.begin(t, inside)
	case dice < 7:
		c.send(t, EventInterim, s)
	case dice == 7:
		c.move(t, s)
	default:
		delete(c.online, inside)
		c.send(t, EventStop, s)
	}
}

func (c *country) restart(t *testing.T, nas int) {
	for inside, s := range c.online {
		if s.nas == nas {
			delete(c.online, inside)
		}
	}
	c.next[nas] = 0
	if c.rng.IntN(2) == 0 {
		c.send(t, EventAccountingOn, &subscription{nas: nas})
	}
	c.now = c.now.Add(time.Duration(20+c.rng.IntN(100)) * time.Second)
}

// begin starts a session, of a new user or of the usual one at the address.
func (c *country) begin(t *testing.T, inside netip.Addr) {
	nas := c.rng.IntN(3)
	s := &subscription{nas: nas, id: fmt.Sprint(c.next[nas]), user: fmt.Sprint("u", c.users), inside: inside, began: c.now}
	if c.rng.IntN(3) == 0 {
		s.user = fmt.Sprint("at", inside)
	}
	c.next[nas]++
	c.users++
	c.online[inside] = s
	if c.rng.IntN(6) == 0 {
		return // the Start was lost
	}
	c.send(t, EventStart, s)
	if groupOf(inside) >= 0 && !c.has(s) {
		c.net.fail(t, c.seed, "the Start of %+v came to nothing", s)
	}
}

// move moves a session to an address without a record.
func (c *country) move(t *testing.T, s *subscription) {
	to := networkAddresses[c.rng.IntN(len(networkAddresses))]
	if _, held := c.record(to); held || c.online[to] != nil {
		return
	}
	delete(c.online, s.inside)
	s.inside, s.moved = to, true
	c.online[to] = s
	c.send(t, EventInterim, s)
}

func (c *country) record(inside netip.Addr) (Record, bool) {
	r, ok := c.net.groups[max(groupOf(inside), 0)].records[inside]
	return r, ok
}

func (c *country) has(s *subscription) bool {
	r, ok := c.record(s.inside)
	return ok && r.AcctSessionID == s.id && r.UserName == s.user && r.NAS == fmt.Sprint("nas", s.nas)
}

// repeat delivers an earlier packet again. It returns the number of sessions
// that lost their address by that, until their next Interim.
func (c *country) repeat(t *testing.T) (away int) {
	if len(c.sent) == 0 {
		return 0
	}
	again := c.sent[c.rng.IntN(len(c.sent))]
	c.now = c.now.Add(3 * time.Second)
	if again.Delay == 0 {
		again.Delay = c.now.Sub(again.Arrival).Truncate(time.Second)
	}
	again.Arrival = c.now
	var had []*subscription
	for _, inside := range networkAddresses {
		if s := c.online[inside]; s != nil && c.has(s) {
			had = append(had, s)
		}
	}
	c.net.tell(t, again)
	for _, s := range had {
		if c.has(s) {
			continue
		}
		away++
		mayHarm := again.Kind == EventStart || again.Kind == EventAccountingOn
		if again.NAS != fmt.Sprint("nas", s.nas) || again.Stamp.IsZero() || !mayHarm {
			c.net.fail(t, c.seed, "the last packet cost %+v its address", s)
		}
		c.now = c.now.Add(5 * time.Minute)
		if c.send(t, EventInterim, s); !c.has(s) {
			c.net.fail(t, c.seed, "%+v does not get its address back", s)
		}
	}
	return away
}

// reportAll sends two Interims of every online session, and checks that it is
// online then. One that moved may have met a record that a late Start has made
// since.
func (c *country) reportAll(t *testing.T) {
	for range 2 {
		for _, inside := range networkAddresses {
			if s := c.online[inside]; s != nil {
				c.now = c.now.Add(5 * time.Minute)
				c.send(t, EventInterim, s)
			}
		}
	}
	for inside, s := range c.online {
		if groupOf(inside) >= 0 && !c.has(s) && !s.moved {
			c.net.fail(t, c.seed, "%+v is not online", s)
		}
	}
}
