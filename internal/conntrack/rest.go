package conntrack

import (
	"context"
	"time"

	"github.com/sessiond/sessiond/internal/clock"
)

// maxRest bounds the pause after work that walked the whole table.
const maxRest = time.Second

// rest waits for d, maxRest at most, or until ctx is done. A rest as long as the work
// before it bounds the work to half a core, however often it is requested.
func rest(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	return clock.Sleep(ctx, min(d, maxRest))
}
