package subscriberdb

import (
	"context"

	"github.com/sessiond/sessiond/internal/audit"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/trail"
	"github.com/sessiond/sessiond/internal/subscriberdb/txn"
)

// callerOrders appends the audit entries about changes that callers order.
type callerOrders struct{ trails *trail.Store }

// Audit returns the audit trails.
func (o *callerOrders) Audit() *trail.Store { return o.trails }

// BeginOrder appends the entry about an order to the kernel, before that is carried out; end
// appends the one with its outcome. Errors wrap audit.ErrUnwritten.
func (o *callerOrders) BeginOrder(ctx context.Context, entry func(*audit.Entry)) (end func(count int, failed error) error, err error) {
	return o.trails.Begin(ctx, entry)
}

// Append implements txn.Trail.
func (o *callerOrders) Append(ctx context.Context, about []*txn.Txn, script trail.Script, list []any) (trail.Answer, error) {
	e, _, err := audit.EntryFor(ctx)
	if err != nil {
		return trail.Answer{}, err
	}
	e.Group, e.Count = about[0].Group.Name, len(about)
	for _, tx := range about {
		e.Keys = append(e.Keys, tx.Inside.String())
	}
	if len(about) == 1 {
		if was := about[0].Holder(); was != nil {
			e.Old = codec.RecordText(was)
		}
		if put := about[0].Decision.Put; put != nil {
			e.New = codec.RecordText(put)
		}
	}
	answer, _, err := o.trails.Append(ctx, e.Group, e, script, list)
	return answer, err
}

// earlierPage is the number of entries that are read at once.
const earlierPage = 1000

// EarlierEntries returns the entries that earlier attempts of the request of the context's order
// have written, newest first; none if there was no such attempt. The entries of another request
// that had its request_id before are left out.
func (o *callerOrders) EarlierEntries(ctx context.Context) (found []audit.Entry, err error) {
	order := audit.From(ctx)
	if order == nil || !order.Again {
		return nil, nil
	}
	f := audit.Filter{
		Actor: order.Name, Method: order.Method, RequestID: order.RequestID, RequestAt: order.RequestAt,
		From: order.RequestAt.Add(-trail.ClockMargin),
	}
	for after := (audit.Place{}); ; {
		page, err := o.trails.List(ctx, f, after, earlierPage)
		if err != nil {
			return nil, err
		}
		if len(page.Unread) > 0 { // it may have some
			return nil, page.Unread[0].Err
		}
		if found, after = append(found, page.Entries...), page.Next; after == (audit.Place{}) {
			return found, nil
		}
	}
}
