package conntrack

import (
	"context"
	"time"

	"github.com/sessiond/sessiond/internal/clock"
)

// maxRest bounds the pause after work that walked the whole table.
const maxRest = time.Second

// rest waits for d, maxRest at most, or until ctx is done. Resting as long as
// the work took keeps it from taking more than half a core, however often it is
// asked for.
func rest(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	return clock.Sleep(ctx, min(d, maxRest))
}
