// Package clock waits for time to pass.
package clock

import (
	"context"
	"time"
)

// Sleep returns after d, or at once if d is not positive. If the context ends
// first, it returns the context's error.
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
