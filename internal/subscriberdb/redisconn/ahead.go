package redisconn

import (
	"context"
	"errors"
)

// errNoMore ends produce after use has failed.
var errNoMore = errors.New("nobody reads on")

// ReadAhead passes the batches of produce to use, one after the other, and reads the next
// meanwhile, so that Redis and the reader work at once. While a slow reader works, one
// batch waits in memory and no command in Redis. ReadAhead returns after both functions.
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
