package txn

import (
	"context"

	"github.com/sessiond/sessiond/internal/subscriberdb/trail"
)

// Trail appends entries about transactions.
type Trail interface {
	// Append calls a script with the entry about some transactions of one group, in one step;
	// list is the call of the script without an entry.
	Append(ctx context.Context, about []*Txn, script trail.Script, list []any) (trail.Answer, error)
}

// RunRecorded is Run for changes that a caller orders: each script call has an audit entry
// about its transactions in the same step, and commits all of them or none. The calls for one
// trail come one after the other.
func (e *Engine) RunRecorded(ctx context.Context, txns []*Txn, t Trail) {
	for range maxAttempts {
		var reads, commits, left []*Txn
		for _, tx := range txns {
			switch tx.prepare(e); tx.op {
			case opNone:
			case opRead:
				reads = append(reads, tx)
			default:
				commits = append(commits, tx)
			}
		}
		if len(reads) > 0 {
			e.committer.submit(ctx, reads)
		}
		for _, tx := range reads {
			if !tx.conclude(e) {
				left = append(left, tx)
			}
		}
		left = append(left, e.commitRecorded(ctx, commits, t)...)
		if txns = left; len(txns) == 0 {
			return
		}
	}
	for _, tx := range txns {
		tx.fail(ErrConflict)
	}
}

// commitRecorded commits decisions with their entries, and returns the transactions that are
// not finished.
func (e *Engine) commitRecorded(ctx context.Context, txns []*Txn, t Trail) (left []*Txn) {
	trip := trips.Get().(*roundTrip)
	defer trip.free()
	trip.e, trip.whole = e, true
	for _, tx := range txns {
		trip.addToBatch(tx)
	}
	for _, b := range trip.batches {
		left = append(left, b.commitRecorded(ctx, e, t)...)
	}
	return left
}

// commitRecorded calls the batch's script with an entry. Where the script refuses a part,
// nothing is written: the refused transactions read again, the others wait for that.
func (b *batch) commitRecorded(ctx context.Context, e *Engine, t Trail) (left []*Txn) {
	b.write(e)
	script := commitScript
	if b.op == opRemove {
		script = stopScript
	}
	answer, err := t.Append(ctx, b.txns, script, b.args.List)
	for _, number := range answer.Refused {
		if number > 0 && number <= len(b.txns) {
			b.txns[number-1].refused = true
		}
	}
	if err == nil && len(answer.Refused) == 0 && answer.Done != nil {
		err = b.accept(answer.Done)
	}
	if err != nil {
		e.o.Client.WriteFailed(err)
		if isExhausted(err) {
			e.o.Exhausted(ctx, b.group)
		}
	}
	for _, tx := range b.txns {
		tx.Err = err
		if len(answer.Refused) > 0 && !tx.refused || !tx.conclude(e) {
			left = append(left, tx)
		}
	}
	return left
}
