package redisconn

import (
	"context"
	"errors"
)

// errNoMore ends a walk whose reader has failed.
var errNoMore = errors.New("nobody reads on")

// ReadAhead hands the batches of produce to use, one after the other, while the next is
// read: Redis and the reader work at once. A reader that takes its time holds one batch
// in memory, and nothing of Redis. It returns when both are done.
func ReadAhead[T any](ctx context.Context, produce func(context.Context, func(T) error) error, use func(T) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	batches, done := make(chan T), make(chan error, 1)
	go func() {
		done <- produce(ctx, func(batch T) error {
			select {
			case batches <- batch:
				return nil
			case <-ctx.Done():
				return errNoMore
			}
		})
		close(batches)
	}()
	var failed error
	for batch := range batches {
		if failed = use(batch); failed != nil {
			cancel()
			break
		}
	}
	err := <-done
	if failed != nil {
		return failed
	}
	if errors.Is(err, errNoMore) {
		return ctx.Err()
	}
	return err
}
