package trail

import (
	"context"
	"fmt"
	"time"

	"github.com/sessiond/sessiond/internal/audit"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
)

// endWithin bounds the wait for the second entry of an order, whose change is made already.
const endWithin = 5 * time.Second

// Begin appends the entry about an order to the kernel, before that is carried out, to the
// common trail. The returned function appends the second one, with the number of subjects
// that were changed, and the error. A context without an order writes nothing.
func (s *Store) Begin(ctx context.Context, entry func(*audit.Entry)) (end func(count int, failed error) error, err error) {
	first, ordered, err := audit.EntryFor(ctx)
	if err != nil {
		return nil, err
	}
	if !ordered {
		return func(int, error) error { return nil }, nil
	}
	entry(&first)
	first.Outcome = audit.Ordered
	head, err := s.note(ctx, first)
	if redisconn.IsAnswer(err) { // and not a caller who left, or a Redis that is away
		s.o.Failed()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", audit.ErrUnwritten, err)
	}
	return func(count int, failed error) error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endWithin)
		defer cancel()
		second, _, err := audit.EntryFor(ctx)
		if err != nil {
			return err
		}
		second.Group, second.Of, second.Count = first.Group, head.Number, count
		if failed != nil {
			second.Outcome, second.Error = audit.Failed, failed.Error()
		}
		if _, err = s.note(ctx, second); err != nil {
			s.o.Failed()
		}
		return err
	}, nil
}

// Note appends an entry about the context's order, which changes nothing in Redis, to the common
// trail. Errors wrap audit.ErrUnwritten.
func (s *Store) Note(ctx context.Context, entry func(*audit.Entry)) error {
	e, ordered, err := audit.EntryFor(ctx)
	if err != nil || !ordered {
		return err
	}
	entry(&e)
	_, err = s.note(ctx, e)
	if redisconn.IsAnswer(err) {
		s.o.Failed()
	}
	if err != nil {
		return fmt.Errorf("%w: %w", audit.ErrUnwritten, err)
	}
	return nil
}

// note appends an entry to the common trail, without a change.
func (s *Store) note(ctx context.Context, e audit.Entry) (audit.Head, error) {
	_, head, err := s.appendTo(ctx, audit.DaemonTrail, e, writes, []any{"evalsha", writes.plain.Hash(), 0})
	return head, err
}
