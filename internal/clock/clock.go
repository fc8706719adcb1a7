// Package clock waits for time to pass.
package clock

import (
	"context"
	"time"
)

// Sleep returns after d, at once where that is not positive, or with the error of the
// context when that ends before.
func Sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
