package txn

import (
	"slices"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
)

// commitList builds the call of commitScript for several transactions of one group.
type commitList struct {
	e    *Engine
	keys []any
	args []any
	tx   *Txn
	own  int // index of the transaction's first key
}

// commitArgs returns the call of commitScript for the transactions of a batch.
func commitArgs(e *Engine, b *batch) []any {
	c := &commitList{
		e:    e,
		keys: make([]any, 0, 3+2+4*len(b.txns)+48*len(b.txns)),
		args: make([]any, 0, 1+48*len(b.txns)),
	}
	c.keys = append(c.keys, "evalsha", commitScript.Hash(), 0, b.group.Feed, b.group.Online)
	c.args = append(c.args, e.o.FeedLimit, b.frees)
	for _, tx := range b.txns {
		c.add(tx)
	}
	c.keys[2] = len(c.keys) - 3
	return append(c.keys, c.args...)
}

func (c *commitList) add(tx *Txn) {
	c.tx, c.own = tx, len(c.keys)
	at := len(c.args)
	c.args = append(c.args, 0)
	claimed := c.conditions()
	c.write(&tx.Decision, claimed)
	c.args[at] = len(c.args) - at - 1
}

// conditions appends the conditions of the read set, and reports whether the condition on
// the session's state also writes it.
func (c *commitList) conditions() (claimed bool) {
	tx := c.tx
	count := len(c.args)
	c.args = append(c.args, 0)
	n := 0
	if tx.usesRestart {
		c.args = append(c.args, "s", c.key(tx.keyRestart()), tx.restart)
		n++
	}
	if tx.Inside.IsValid() {
		c.args = append(c.args, "v", c.key(tx.keyRecord()), versionOf(tx.holder))
		n++
	}
	if a := tx.elsewhere(tx.Inside); a.IsValid() {
		c.args = append(c.args, "v", c.key(codec.RecordKey(tx.Group.Name, a)), versionOf(tx.current))
		n++
	}
	if tx.remembers() && !tx.versionCoversState {
		n++
		if claimed = tx.line == "" && tx.Decision.Session != nil; claimed {
			c.args = append(c.args, "n")
			c.state(tx.keySession(), tx.Session, tx.Decision.Session)
		} else {
			c.args = append(c.args, "s", c.key(tx.keySession()), tx.line)
		}
	}
	c.args[count] = n
	return claimed
}

// key returns the number of a key in the script, and adds the key if it is new.
func (c *commitList) key(name string) int {
	for i := c.own; i < len(c.keys); i++ {
		if c.keys[i] == name {
			return i - 2
		}
	}
	c.keys = append(c.keys, name)
	return len(c.keys) - 3
}

// write appends the decision's writes, deletions first.
func (c *commitList) write(d *subscriber.Decision, claimed bool) {
	for i := range d.Delete {
		c.delete(&d.Delete[i])
	}
	if d.Put != nil {
		c.put(d)
	}
	if d.Session != nil && !claimed {
		c.args = append(c.args, "set")
		c.state(c.tx.keySession(), c.tx.Session, d.Session)
	}
	if d.Restart != nil {
		c.mark(d.Restart)
	}
}

func (c *commitList) delete(e *subscriber.Ending) {
	r := &e.Record
	c.args = append(c.args, "del", c.record(r), r.Inside.String(), e.Reason.String(), e.Cause, codec.RecordText(r))
	if e.Tombstone != nil {
		c.args = append(c.args, "close")
		c.state(codec.SessionKey(c.tx.Group.Name, r.SessionID), r.SessionID, e.Tombstone)
	}
}

// record returns the number of a record's key in the script.
func (c *commitList) record(r *subscriber.Record) int {
	if r.Inside == c.tx.Inside {
		return c.key(c.tx.keyRecord())
	}
	return c.key(codec.RecordKey(r.Group, r.Inside))
}

// put appends the write of the record, and of its entry in the hash of online addresses if
// there is none yet.
func (c *commitList) put(d *subscriber.Decision) {
	r, kind := d.Put, subscriber.Updated
	if d.Created {
		kind = subscriber.Created
	}
	stands := c.tx.recordAt(r.Inside)
	if slices.ContainsFunc(d.Delete, func(e subscriber.Ending) bool { return e.Record.Inside == r.Inside }) {
		stands = nil
	}
	ttl := c.e.recordTTL(c.tx.Group, r)
	if ttl > 0 {
		r.ExpiresAt = c.e.o.Now().Add(ttl)
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

// state appends the write of a session's state: key, line and time to live.
func (c *commitList) state(key string, id subscriber.SessionID, state *subscriber.SessionState) {
	var ttl time.Duration
	if state.Phase == subscriber.Open && state.Inside.IsValid() && !c.tx.FoundNoLink() {
		ttl = c.e.OpenTTL(c.tx.Group.TTL(id.Client))
	} else {
		ttl = c.e.closedTTL(c.tx, id, state)
	}
	c.args = append(c.args, c.key(key), codec.FormatState(state), ttl.Milliseconds())
}

func (c *commitList) mark(r *subscriber.Restart) {
	tx := c.tx
	c.args = append(c.args, "mark", c.key(tx.keyRestart()), codec.FormatRestart(r),
		c.e.restartTTL(tx.Session).Milliseconds(), c.key(codec.RestartsKey(tx.Group.Name)), codec.NASRef(tx.Session))
}
