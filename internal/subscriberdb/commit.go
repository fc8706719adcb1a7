package subscriberdb

import (
	"strconv"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// commit builds the arguments of commitScript for one step.
type commit struct {
	db   *DB
	step *step
	keys []string
	args []any
}

// newCommit starts with the step's conditions.
func newCommit(db *DB, s *step) *commit {
	c := &commit{db: db, step: s}
	c.keys = append(make([]string, 0, 8), feedKey(s.group.Name), onlineKey(s.group.Name))
	watches := s.watches(s.elsewhere())
	c.args = append(make([]any, 0, 64), db.feedLength, len(watches))
	for _, w := range watches {
		c.args = append(c.args, w.kind, c.key(w.key), w.want)
	}
	return c
}

func (c *commit) call() *call { return &call{script: commitScript, keys: c.keys, args: c.args} }

// key returns the number under which the script knows a key.
func (c *commit) key(name string) int {
	for i, k := range c.keys {
		if k == name {
			return i + 1
		}
	}
	c.keys = append(c.keys, name)
	return len(c.keys)
}

// write adds the decision's writes, deletions first.
func (c *commit) write(d *subscriber.Decision) {
	for i := range d.Delete {
		c.delete(&d.Delete[i])
	}
	if d.Put != nil {
		c.put(d.Put, d.Created)
	}
	if d.Session != nil {
		c.remember(c.step.id, d.Session)
	}
	if d.Restart != nil {
		c.mark(d.Restart)
	}
}

func (c *commit) delete(e *subscriber.Ending) {
	r := &e.Record
	c.args = append(c.args, "del", c.key(recordKey(r.Group, r.Inside)), r.Inside.String(), c.index(r),
		e.Reason.String(), recordText(r))
	if e.Tombstone != nil {
		c.remember(r.SessionID, e.Tombstone)
	}
}

// put writes the fields that change, and enters the record into the lists if
// they do not have it yet.
func (c *commit) put(r *subscriber.Record, created bool) {
	kind := subscriber.Updated
	stands := c.step.standing(r)
	if created {
		kind, stands = subscriber.Created, nil
	}
	ttl := c.recordTTL(r)
	if ttl > 0 {
		r.ExpiresAt = c.db.now().Add(ttl)
	}
	fields := changedFields(stands, r)
	c.args = append(c.args, "put", c.key(recordKey(r.Group, r.Inside)), r.Inside.String(), kindNames[kind],
		milliseconds(ttl), recordText(r), len(fields))
	c.args = append(c.args, fields...)
	if stands == nil || stands.SessionID != r.SessionID || stands.UserName != r.UserName {
		c.args = append(c.args, "list", r.Inside.String(), c.index(r), witness(r), milliseconds(ttl))
	}
}

// recordTTL is how long the record lives without news: as long as it says, or
// the group's time; a record by hand has no accounting that would refresh it.
func (c *commit) recordTTL(r *subscriber.Record) time.Duration {
	switch {
	case !r.ExpiresAt.IsZero():
		return max(r.ExpiresAt.Sub(c.db.now()), time.Millisecond)
	case r.SessionID == subscriber.SessionID{} && !r.Unconfirmed:
		return 0
	}
	return c.step.group.RecordTTL
}

func (c *commit) remember(id subscriber.SessionID, s *subscriber.SessionState) {
	c.args = append(c.args, "set", c.key(sessionKey(c.step.group.Name, id)), formatState(s), milliseconds(c.stateTTL(s)))
}

// stateTTL lets the state of an open session outlive its record, so that what
// comes after the record has expired is still put in order.
func (c *commit) stateTTL(s *subscriber.SessionState) time.Duration {
	switch {
	case s.Phase != subscriber.Open || !s.Inside.IsValid():
		return c.db.tombstoneTTL
	case c.step.group.RecordTTL == 0:
		return 0
	}
	return c.step.group.RecordTTL + c.db.tombstoneTTL
}

func (c *commit) mark(r *subscriber.Restart) {
	s := c.step
	c.args = append(c.args, "mark", c.key(restartKey(s.group.Name, s.id)), formatTime(r.At),
		milliseconds(c.db.tombstoneTTL), c.key(restartsKey(s.group.Name)), nasRef(s.id))
}

// index is the number of the key of the NAS's set of addresses; 0 for a record
// without a NAS.
func (c *commit) index(r *subscriber.Record) int {
	if r.NAS == "" {
		return 0
	}
	return c.key(nasIndexKey(c.step.group.Name, r.SessionID))
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
