// Package clock waits for time to pass.
package clock

import (
	"context"
	"time"
)

// Share returns a context that ends when one of so many parts of the time is over that ctx has.
func Share(ctx context.Context, parts int) (context.Context, context.CancelFunc) {
	end, bounded := ctx.Deadline()
	if !bounded {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, time.Until(end)/time.Duration(parts))
}

// Sleep returns after d, or at once if d is not positive. If the context ends
// first, it returns the context's error.
func Sleep(ctx context.Context, d time.Duration) error {
	_, err := SleepOr(ctx, d, (<-chan struct{})(nil))
	return err
}

// SleepOr is Sleep that also returns when it receives from wake, and then reports woken. A nil
// wake never does.
func SleepOr[T any](ctx context.Context, d time.Duration, wake <-chan T) (woken bool, err error) {
	if d <= 0 {
		return false, ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false, ctx.Err()
	case <-timer.C:
		return false, nil
	case <-wake:
		return true, nil
	}
}
