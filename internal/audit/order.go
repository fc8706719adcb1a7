package audit

import (
	"context"
	"errors"
	"time"
)

// Errors that callers check for.
var (
	// ErrUnwritten: the entry about a change cannot be written, so the change is not made.
	ErrUnwritten = errors.New("the audit entry cannot be written, so its change is not made")
	// ErrValidateOnly: a call that only validates came to a change. It is a mistake of
	// sessiond, and nothing was changed.
	ErrValidateOnly = errors.New("a call with validate_only must not change anything")
)

// Actor is the caller who orders a change.
type Actor struct {
	Name   string // such as "san:spiffe://isp/noc", "user:0", "local"
	Role   string // the caller's rights, by name
	Source string // address of the peer, or "unix"
}

// Order is one call that changes something. Each entry about it is a part, with its number.
type Order struct {
	Actor
	Method       string    // without its service, such as "DeleteSubscribers"
	Reason       string    // in the caller's words
	RequestID    string    // of the caller; "" for none
	RequestAt    time.Time // begin of the first attempt with the RequestID
	Again        bool      // an earlier attempt with the RequestID ended without an outcome
	ValidateOnly bool      // nothing may be changed

	parts int   // entries that were written
	wrong error // the reason why a change is taken back
}

type orderKey struct{}

// With returns a context for the work on an order. Each change of stored data under it gets
// an entry. The work is done step by step, by one task.
func With(ctx context.Context, o *Order) context.Context {
	return context.WithValue(ctx, orderKey{}, o)
}

// From returns the order that a context is for, nil for none: sessiond acts by itself.
func From(ctx context.Context) *Order {
	o, _ := ctx.Value(orderKey{}).(*Order)
	return o
}

// Reverting returns a context for the change that takes back the order's last one, which could
// not be put in force.
func Reverting(ctx context.Context, why error) context.Context {
	o := From(ctx)
	if o == nil {
		return ctx
	}
	back := *o
	back.wrong = why
	return With(ctx, &back)
}

// EntryFor returns an entry about the next part of the context's order, which the caller
// completes. ok is false without an order.
func EntryFor(ctx context.Context) (e Entry, ok bool, err error) {
	o := From(ctx)
	if o == nil {
		return Entry{}, false, nil
	}
	if o.ValidateOnly {
		return Entry{}, true, ErrValidateOnly
	}
	e = Entry{
		Actor: o.Name, Role: o.Role, Source: o.Source, Method: o.Method,
		Reason: o.Reason, RequestID: o.RequestID, RequestAt: o.RequestAt, Part: o.parts + 1, Outcome: Done,
	}
	if o.wrong != nil {
		e.Outcome, e.Error = TakenBack, o.wrong.Error()
	}
	return e, true, nil
}

// Began reports whether an entry of the order was written.
func (o *Order) Began() bool { return o.parts > 0 }

// Wrote counts an entry of the order that was written.
func (o *Order) Wrote() { o.parts++ }
