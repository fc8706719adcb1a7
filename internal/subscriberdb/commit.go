package subscriberdb

import (
	"cmp"
	"slices"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
)

// commitList builds the call of commitScript for several steps of one group.
type commitList struct {
	e    *txnEngine
	keys []any
	args []any
	step *step
	own  int // keys that belong to the step begin here
}

// commitArgs returns the call of commitScript for the steps of a batch.
func commitArgs(e *txnEngine, b *batch) []any {
	c := &commitList{
		e:    e,
		keys: make([]any, 0, 3+2+4*len(b.steps)+48*len(b.steps)),
		args: make([]any, 0, 1+48*len(b.steps)),
	}
	c.keys = append(c.keys, "evalsha", commitScript.Hash(), 0, b.group.feed, b.group.online)
	c.args = append(c.args, e.feedLimit, b.frees)
	for _, s := range b.steps {
		c.add(s)
	}
	c.keys[2] = len(c.keys) - 3
	return append(c.keys, c.args...)
}

func (c *commitList) add(s *step) {
	c.step, c.own = s, len(c.keys)
	at := len(c.args)
	c.args = append(c.args, 0)
	claimed := c.conditions()
	c.write(&s.decision, claimed)
	c.args[at] = len(c.args) - at - 1
}

// conditions writes what the decision rests on, and reports whether the
// session's state is written with its condition.
func (c *commitList) conditions() (claimed bool) {
	s := c.step
	count := len(c.args)
	c.args = append(c.args, 0)
	n := 0
	if s.usesRestart {
		c.args = append(c.args, "s", c.key(s.keyRestart()), s.restart)
		n++
	}
	if s.inside.IsValid() {
		c.args = append(c.args, "v", c.key(s.keyRecord()), versionOf(s.holder))
		n++
	}
	if a := s.elsewhere(s.inside); a.IsValid() {
		c.args = append(c.args, "v", c.key(codec.RecordKey(s.group.Name, a)), versionOf(s.current))
		n++
	}
	if s.remembers() && !s.vouched {
		n++
		if claimed = s.line == "" && s.decision.Session != nil; claimed {
			c.args = append(c.args, "n")
			c.state(s.keySession(), s.id, s.decision.Session)
		} else {
			c.args = append(c.args, "s", c.key(s.keySession()), s.line)
		}
	}
	c.args[count] = n
	return claimed
}

// key returns the number under which the script knows a key.
func (c *commitList) key(name string) int {
	for i := c.own; i < len(c.keys); i++ {
		if c.keys[i] == name {
			return i - 2
		}
	}
	c.keys = append(c.keys, name)
	return len(c.keys) - 3
}

// write adds the decision's writes, deletions first.
func (c *commitList) write(d *subscriber.Decision, claimed bool) {
	for i := range d.Delete {
		c.delete(&d.Delete[i])
	}
	if d.Put != nil {
		c.put(d)
	}
	if d.Session != nil && !claimed {
		c.args = append(c.args, "set")
		c.state(c.step.keySession(), c.step.id, d.Session)
	}
	if d.Restart != nil {
		c.mark(d.Restart)
	}
}

func (c *commitList) delete(e *subscriber.Ending) {
	r := &e.Record
	c.args = append(c.args, "del", c.record(r), r.Inside.String(), e.Reason.String(), e.Cause, codec.RecordText(r))
	if e.Tombstone != nil {
		c.args = append(c.args, "bury")
		c.state(codec.SessionKey(c.step.group.Name, r.SessionID), r.SessionID, e.Tombstone)
	}
}

// record returns the number of a record's key.
func (c *commitList) record(r *subscriber.Record) int {
	if r.Inside == c.step.inside {
		return c.key(c.step.keyRecord())
	}
	return c.key(codec.RecordKey(r.Group, r.Inside))
}

// put writes the record, and enters it into the hash of online addresses if it
// is not there yet.
func (c *commitList) put(d *subscriber.Decision) {
	r, kind := d.Put, subscriber.Updated
	if d.Created {
		kind = subscriber.Created
	}
	stands := c.step.standing(r.Inside)
	if slices.ContainsFunc(d.Delete, func(e subscriber.Ending) bool { return e.Record.Inside == r.Inside }) {
		stands = nil
	}
	ttl := c.e.recordTTL(c.step.group, r)
	if ttl > 0 {
		r.ExpiresAt = c.e.now().Add(ttl)
	}
	known := ""
	if stands == nil || stands.SessionID != r.SessionID || stands.UserName != r.UserName {
		known = codec.FormatOnlineEntry(r)
	}
	c.args = append(c.args, "put", c.record(r), r.Inside.String(), codec.KindName(kind), ttl.Milliseconds(), codec.RecordText(r), known, 0)
	from := len(c.args)
	c.args = codec.AppendFields(c.args, r, stands != nil)
	c.args[from-1] = len(c.args) - from
}

// state writes the state of a session: key, line and time to live.
func (c *commitList) state(key string, id subscriber.SessionID, s *subscriber.SessionState) {
	var ttl time.Duration
	if s.Phase == subscriber.Open && s.Inside.IsValid() && !c.step.foundNoLink() {
		ttl = c.e.openTTL(c.step.group.ttlOf(id.Client))
	} else {
		ttl = c.e.closedTTL(c.step, id, s)
	}
	c.args = append(c.args, c.key(key), codec.FormatState(s), ttl.Milliseconds())
}

func (c *commitList) mark(r *subscriber.Restart) {
	s := c.step
	c.args = append(c.args, "mark", c.key(s.keyRestart()), codec.FormatRestart(r),
		c.e.restartTTL(s.id).Milliseconds(), c.key(codec.RestartsKey(s.group.Name)), codec.NASRef(s.id))
}

// recordTTL is how long the record lives without news: as long as it says, or
// the time of its client or group; a record by hand has no accounting that would
// refresh it, and one whose removal is held waits for a decision, unless it says
// for how long.
func (e *txnEngine) recordTTL(g *Group, r *subscriber.Record) time.Duration {
	switch {
	case r.RemovalHeld != subscriber.ReasonNone && r.ExpiresAt.IsZero():
		return 0
	case !r.ExpiresAt.IsZero():
		return max(r.ExpiresAt.Sub(e.now()), time.Millisecond)
	case r.SessionID == subscriber.SessionID{} && !r.Unconfirmed:
		return 0
	}
	return g.ttlOf(r.Client)
}

// restartTTL is how long a restart is remembered: as long as the NAS, so that a packet of
// it that comes again ends nothing. A client may invent NASes: one that there is no room for
// is remembered for as long as its sessions take to be ended.
func (e *txnEngine) restartTTL(id subscriber.SessionID) time.Duration {
	if e.knowsNAS(id) {
		return max(nasForgotten, e.tombstoneTTL)
	}
	return crowdedTTL
}

// openTTL lets the state of an open session outlive its record by the time of a
// tombstone, so that what comes after the record has expired is still put in
// order. Not every Interim writes it again, so it gets some more.
func (e *txnEngine) openTTL(record time.Duration) time.Duration {
	if record == 0 {
		return 0
	}
	return 2*record + e.tombstoneTTL + e.restateAfter()
}

// closedTTL is how long the state of a session lives that has ended, has no address, or is one
// link more than its record keeps: those a client may make as many of as it likes, so they are bounded.
func (e *txnEngine) closedTTL(s *step, id subscriber.SessionID, state *subscriber.SessionState) time.Duration {
	ttl, crowded := e.tombstones.ttl(id.Client, e.now())
	if crowded {
		e.crowded(cmp.Or(s.via, id.Client))
		return ttl
	}
	s.buried = append(s.buried, announcement{id.Client, codec.StateOctets(s.group.Name, id, state.UserName)})
	return ttl
}

// announcement is a tombstone that a step is to write.
type announcement struct {
	client string
	octets int
}
