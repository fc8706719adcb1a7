package txn

import (
	"fmt"
	"hash/maphash"
	"net/netip"
	"slices"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
)

// operation is the next operation of a transaction on Redis.
type operation uint8

const (
	opNone    operation = iota // none: it is committed, or has failed
	opRead                     // read the read set
	opCommit                   // write the decision, if the read set still holds
	opCreate                   // opCommit by createScript
	opRefresh                  // opCommit by refreshScript
	opStop                     // opCommit by stopScript, for a Stop
	opRemove                   // opCommit by stopScript, for a record that ends without an event
)

// Txn is one decision and its atomic commit, in one group. It starts from a read set that
// is guessed from the cache, or read. The commit compares the read set; if it does not hold
// nothing is written, and the transaction reads and decides again.
type Txn struct {
	Group   *Group
	Scope   subscriber.Scope     // the group's part in the event, for the decision
	Session subscriber.SessionID // session that is decided about; zero for none
	Hash    uint64               // HashOf the session; unset for none
	Inside  netip.Addr           // address that is decided about; zero for none
	Via     string               // RADIUS client that it is counted for; "" for the session's
	Decider Decider

	Decision subscriber.Decision // once it ran: the decision, which is committed
	Err      error               // once it ran: the reason of its failure

	Conflicted bool // a guess was wrong, because another writer changed the same data

	readSet
	usesRestart bool              // the decision depends on the restart of the session's NAS
	cached      subscriber.Record // memory for the record of the guess

	op           operation
	last         *subscriber.SessionState // state of the session that a stop or a removal ends
	tombstones   []tombstone              // tombstones that it writes with the full time to live
	oneTombstone [1]tombstone             // memory for tombstones, enough for most transactions
	feedID       string                   // last feed entry of the commit
	refused      bool                     // Redis has other data than the read set
}

// A Decider decides about a transaction by the data in Redis. It also returns the identity
// of the session: if that is not the transaction's own, the transaction reads that session
// instead, and decides again.
type Decider interface {
	Decide(tx *Txn, v subscriber.View) (subscriber.Decision, subscriber.SessionID)
}

// DecideFunc is a Decider that needs only the view.
type DecideFunc func(subscriber.View) subscriber.Decision

// Decide implements Decider.
func (f DecideFunc) Decide(tx *Txn, v subscriber.View) (subscriber.Decision, subscriber.SessionID) {
	return f(v), tx.Session
}

// A Group holds the data of a group for transactions.
type Group struct {
	Name         string
	Feed, Online string // keys in every call of the group

	hash      uint64 // of the name
	addressAt int    // position of the address in the key of a record, counted from 1
	recordTTL time.Duration
	clientTTL map[string]time.Duration
}

// NewGroup returns a group whose records expire recordTTL after their last refresh, those
// of the RADIUS clients in clientTTL after that time; 0 means never.
func NewGroup(name string, recordTTL time.Duration, clientTTL map[string]time.Duration) *Group {
	return &Group{
		Name: name, Feed: codec.FeedKey(name), Online: codec.OnlineKey(name),
		hash: maphash.String(hashSeed, name), addressAt: len(codec.RecordKeyPrefix(name)) + 1,
		recordTTL: recordTTL, clientTTL: clientTTL,
	}
}

// TTL returns the time to live of a record of the client after its last refresh; 0 means
// that it does not expire.
func (g *Group) TTL(client string) time.Duration {
	if ttl, ok := g.clientTTL[client]; ok {
		return ttl
	}
	return g.recordTTL
}

// readSet is the data in Redis that a decision depends on, as read or guessed.
type readSet struct {
	loaded bool           // the read set is complete enough to decide
	known  *cachedSession // the session that it is guessed from; nil for none
	// versionCoversState: every script that changes the state of this open session also
	// writes or deletes its record. The record is known to exist, from no later than the
	// state. So the commit compares the record's version only.
	versionCoversState bool

	line    string // state line of the session as read; "" for none, and if the version covers it
	session subscriber.SessionState
	restart string // restart line of the session's NAS
	holder  *subscriber.Record
	current *subscriber.Record // record at the address where the session is open, if that is not the transaction's
	asked   netip.Addr         // that address, once it was read

	sessionKey, restartKey, recordKey string // "" until they are needed
}

// UseRestart makes the decision depend on the newest restart of the session's NAS.
func (tx *Txn) UseRestart(e *Engine) {
	tx.usesRestart = true
	tx.restart = e.cache.restart(tx.Group.Name, tx.Session)
}

// Load guesses the read set from the session's last commit. If unknown is set, a session
// that is not in the cache is guessed to have no state. Load reports whether the session is
// known to be open at the transaction's address.
func (tx *Txn) Load(e *Engine, unknown bool) bool {
	r := &tx.cached
	c := e.cache.get(tx, r)
	if c == nil {
		tx.loaded = unknown
		return false
	}
	tx.loaded, tx.versionCoversState, tx.session, tx.known = true, true, c.state(r), c
	if r.Inside != tx.Inside {
		tx.current, tx.asked = r, r.Inside
		return false
	}
	tx.holder = r
	return true
}

// Guess sets the read set to the given record at the transaction's address.
func (tx *Txn) Guess(r *subscriber.Record) {
	tx.cached = *r
	tx.readSet = readSet{loaded: true, holder: &tx.cached}
}

// prepare decides, and sets the operation that commits the decision.
func (tx *Txn) prepare(e *Engine) {
	if !tx.loaded {
		tx.op = opRead
		return
	}
	tx.tombstones = tx.oneTombstone[:0]
	v := subscriber.View{Group: tx.Group.Name, Scope: tx.Scope, Session: tx.session, Holder: tx.holder, Current: tx.current}
	if tx.restart != "" {
		v.Restart = codec.ParseRestart(tx.restart)
	}
	d, id := tx.Decider.Decide(tx, v)
	if id != tx.Session {
		tx.rename(e, id)
		return
	}
	tx.Decision, tx.op = d, opNone
	if d.Writes() || !tx.certain() {
		tx.op = tx.commitOperation(e)
	}
}

// rename replaces the session by another one, of which nothing has been read.
func (tx *Txn) rename(e *Engine, id subscriber.SessionID) {
	tx.Session, tx.Hash, tx.Conflicted, tx.op = id, HashOf(id), true, opRead
	tx.readSet = readSet{recordKey: tx.recordKey}
	if tx.usesRestart {
		tx.restart = e.cache.restart(tx.Group.Name, id)
	}
}

// certain reports whether the decision depends on one key only, so that reading the key is
// as good as a commit.
func (tx *Txn) certain() bool {
	if tx.Session == (subscriber.SessionID{}) {
		return true
	}
	return tx.line == "" && (tx.Scope == subscriber.Elsewhere || tx.Scope == subscriber.NoAddress)
}

// conclude processes the answers of Redis, and reports whether the transaction is finished.
func (tx *Txn) conclude(e *Engine) bool {
	switch {
	case tx.Err != nil:
		tx.fail(tx.Err)
		return true
	case tx.op == opRead:
		if err := tx.fromReads(tx.Session, tx.Inside); err != nil {
			tx.fail(fmt.Errorf("key %s: %w", tx.sessionKey, err))
			return true
		}
		if tx.usesRestart {
			e.cache.setRestart(tx.Group.Name, tx.Session, tx.restart)
		}
		return false
	case tx.refused:
		tx.Conflicted, tx.refused = true, false
		tx.readSet = readSet{sessionKey: tx.sessionKey, recordKey: tx.recordKey, restartKey: tx.restartKey, restart: tx.restart}
		return false
	}
	for _, t := range tx.tombstones {
		e.tombstones.wrote(t.client, t.octets, e.o.Now())
	}
	if tx.Decision.Put != nil {
		tx.Decision.Put.Version = tx.feedID
	}
	if tx.Decision.Restart != nil {
		tx.Decision.Restart.ID = tx.feedID
	}
	return true
}

// fromReads sets the read set from the answers of Redis, whose records were read before the
// session's state. The read set stays incomplete if the session is at another address,
// which has to be read too.
func (rs *readSet) fromReads(id subscriber.SessionID, inside netip.Addr) (err error) {
	if rs.session, err = codec.ParseState(rs.line); err != nil {
		return err
	}
	elsewhere := rs.elsewhere(inside)
	if rs.loaded = elsewhere == rs.asked; !rs.loaded {
		rs.asked, rs.current = elsewhere, nil
		rs.loaded = !elsewhere.IsValid()
	}
	own := rs.recordAt(rs.session.Inside)
	rs.versionCoversState = rs.loaded && rs.session.Phase == subscriber.Open && own != nil && own.SessionID == id && own.Version != codec.Unversioned
	return nil
}

// elsewhere returns the address where the session is open, if that is not the given one.
func (rs *readSet) elsewhere(inside netip.Addr) netip.Addr {
	if rs.session.Phase != subscriber.Open || rs.session.Inside == inside {
		return netip.Addr{}
	}
	return rs.session.Inside
}

// recordAt returns the record at an address in the read set; nil for none.
func (rs *readSet) recordAt(inside netip.Addr) *subscriber.Record {
	if rs.holder != nil && rs.holder.Inside == inside {
		return rs.holder
	}
	if rs.current != nil && rs.current.Inside == inside {
		return rs.current
	}
	return nil
}

// versionOf returns the version of a record in the form of commitScript.
func versionOf(r *subscriber.Record) string {
	if r == nil {
		return ""
	}
	return r.Version
}

func (tx *Txn) fail(err error) { tx.Err = fmt.Errorf("group %s: %w", tx.Group.Name, err) }

// Save caches the session if it is open at the transaction's address and complete is set:
// then the caller knows that no other group has the session. Otherwise it removes the
// session from the cache, unless nothing was written. It reports whether it cached a
// session that may be new.
func (tx *Txn) Save(e *Engine, p *subscriber.Packer, complete bool) bool {
	d := &tx.Decision
	switch {
	case complete && !tx.Conflicted && !d.Writes():
		return false
	case !complete || d.Put == nil || d.Session == nil || d.Put.Inside != tx.Inside:
		e.cache.put(tx, nil)
		return false
	case tx.op == opRefresh && tx.known != nil:
		e.cache.put(tx, tx.known.refreshed(p, d.Put))
		return false
	}
	e.cache.put(tx, newCachedSession(p, d.Put, d.Session))
	return tx.op != opRefresh
}

// Holder returns the record at the transaction's address that the decision depends on, nil
// for none.
func (tx *Txn) Holder() *subscriber.Record { return tx.holder }

// FoundNoLink reports whether the decision is about a link, or service, for which its
// record has no room.
func (tx *Txn) FoundNoLink() bool {
	put := tx.Decision.Put
	return put != nil && tx.Decision.Verdict == subscriber.Linked && !slices.Contains(put.Links, tx.Session.AcctSessionID)
}

// remembers reports whether the transaction is about a session.
func (tx *Txn) remembers() bool { return tx.Session != (subscriber.SessionID{}) }

// keySession returns the key of the session's state, built once.
func (tx *Txn) keySession() string {
	if tx.sessionKey == "" {
		tx.sessionKey = codec.SessionKey(tx.Group.Name, tx.Session)
	}
	return tx.sessionKey
}

// keyRestart returns the key of the restart of the session's NAS, built once.
func (tx *Txn) keyRestart() string {
	if tx.restartKey == "" {
		tx.restartKey = codec.RestartKey(tx.Group.Name, tx.Session)
	}
	return tx.restartKey
}

// keyRecord returns the key of the record at the transaction's address, built once.
func (tx *Txn) keyRecord() string {
	if tx.recordKey == "" {
		tx.recordKey = codec.RecordKey(tx.Group.Name, tx.Inside)
	}
	return tx.recordKey
}
