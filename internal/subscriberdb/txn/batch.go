package txn

import (
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
)

// BatchSize bounds the transactions of one script call: Redis serves no other client during
// a call, and a call succeeds or fails as a whole.
const BatchSize = 64

// batch holds the transactions of one script call.
type batch struct {
	group  *Group
	kind   operation
	ttl    int64             // of the records that begin or are refreshed, or of the states of sessions that end
	reason subscriber.Reason // of the records that are removed
	frees  bool              // of a commit: all its transactions free memory
	txns   []*Txn
	octets int    // upper bound of their lines in the feed
	bases  []*Txn // one transaction for each restart that the batch's decisions depend on
	args   codec.ArgBuffer
	cmd    *redis.Cmd
}

func (b *batch) add(tx *Txn, octets int) {
	b.txns = append(b.txns, tx)
	b.octets += octets
}

// FeedEntryOctets bounds the feed entry of one call: the lines of 64 records with the
// longest attributes would be 229 kB, and would block a reader, and Redis, for too long.
const FeedEntryOctets = 64 << 10

// feedOctets returns an upper bound of the transaction's line in the feed, in octets. Lines
// without free text are too short to count.
func (tx *Txn) feedOctets() int {
	r := tx.Decision.Put
	if tx.op != opCreate || r == nil {
		return 0
	}
	raw := len(r.UserName) + len(r.NAS) + len(r.Client) + len(r.AcctSessionID) + len(r.CallingStationID) + len(r.Class)
	return beganOctets + 3*raw // an escaped octet takes three, see codec.Escape
}

// beganOctets is the length of the line of a new session without free text.
const beganOctets = 160

// frees reports whether the transaction ends records, or stores the restart of a NAS that
// is to end some, and creates none. A Redis without free memory executes it too.
func (tx *Txn) frees() bool {
	d := &tx.Decision
	return d.Put == nil && (len(d.Delete) > 0 || d.Restart != nil)
}

// full reports whether the transaction must go into another call: all scripts but
// commitScript compare before they write, so a call of theirs must not have a record or a
// session twice.
func (b *batch) full(tx *Txn, octets int) bool {
	if len(b.txns) == BatchSize || b.octets+octets > FeedEntryOctets {
		return true
	}
	if b.kind == opCommit {
		return false
	}
	for _, other := range b.txns {
		if other.Inside == tx.Inside || tx.remembers() && other.Session.AcctSessionID == tx.Session.AcctSessionID && other.Session == tx.Session {
			return true
		}
	}
	return false
}

// write builds the arguments of the call.
func (b *batch) write(e *Engine) {
	switch b.kind {
	case opCreate:
		b.writeCreate(e)
	case opRefresh:
		b.writeRefresh(e)
	case opStop, opRemove:
		b.writeStop(e)
	default:
		b.args.Add(commitArgs(e, b)...)
	}
}

// deliver gives the answers to the transactions, or returns the error of the call.
func (b *batch) deliver(failed error) error {
	err := redisconn.Answered(b.cmd, failed)
	answers, _ := b.cmd.Val().([]any)
	switch {
	case err != nil:
	case b.kind != opCommit && len(answers) > 0:
		b.deliverTogether(answers)
		return nil
	case b.kind == opCommit && len(answers) == len(b.txns):
		b.deliverEach(answers)
		return nil
	default:
		err = fmt.Errorf("script answered %v", b.cmd.Val())
	}
	for _, tx := range b.txns {
		tx.Err = err
	}
	return err
}

// deliverTogether sets the feed entry of all transactions, and marks the refused ones.
func (b *batch) deliverTogether(answers []any) {
	id, _ := answers[0].(string)
	for _, tx := range b.txns {
		tx.feedID = id
	}
	for _, refused := range answers[1:] {
		if i, _ := refused.(int64); i > 0 && int(i) <= len(b.txns) {
			b.txns[i-1].refused = true
		} else {
			for _, tx := range b.txns {
				tx.refused = true
			}
		}
	}
}

func (b *batch) deliverEach(answers []any) {
	for i, tx := range b.txns {
		id, done := answers[i].(string)
		tx.feedID, tx.refused = id, !done
	}
}

// isExhausted reports whether the feed accepts no more entries: another program added one
// with the highest possible identifier, and Redis adds none below the last.
func isExhausted(err error) bool {
	return err != nil && strings.Contains(err.Error(), "exhausted the last possible ID")
}
