package nftnat

import (
	"context"
	"log/slog"
	"time"

	"github.com/sessiond/sessiond/internal/clock"
	"github.com/sessiond/sessiond/internal/netns"
	"github.com/sessiond/sessiond/internal/throttle"
)

// rereadPause is the least time between two readings of all rules.
const rereadPause = time.Second

// A rereader reads the rules of all tables again when notices say that the result may be another.
// Programming does not wait for it, since there may be tens of thousands of rules that change
// all the time.
type rereader struct {
	ns  netns.Namespace
	log *slog.Logger
	due chan struct{} // signalled when everything is to be read
}

func newRereader(log *slog.Logger) rereader {
	return rereader{log: log, due: make(chan struct{}, 1)}
}

// ask makes a reading due.
func (r *rereader) ask() {
	select {
	case r.due <- struct{}{}:
	default:
	}
}

// newest reports whether no other reading is due: then nothing was added since the last one.
func (r *rereader) newest() bool { return len(r.due) == 0 }

// reread calls look each time a reading is due, and again after an error, which it logs with
// the words of failure.
func (r *rereader) reread(ctx context.Context, look func(context.Context) error, failure string) error {
	var thin throttle.Throttle
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.due:
		}
		if err := look(ctx); err != nil {
			r.ask()
			if failed, ok := thin.Allow(time.Now()); ok && ctx.Err() == nil {
				r.log.Warn(failure, "error", err, "suppressed", failed)
			}
		}
		if err := clock.Sleep(ctx, rereadPause); err != nil {
			return err
		}
	}
}
