package session

import (
	"context"
	"log/slog"
	"time"

	"github.com/sessiond/sessiond/internal/clock"
)

const (
	retryFirst = 50 * time.Millisecond
	retryMost  = time.Second
)

// retry calls try until it succeeds or ctx ends, with growing pauses from
// retryFirst to retryMost. It logs the first failure and the recovery.
func retry(ctx context.Context, log *slog.Logger, what string, try func(context.Context) error) error {
	return retryLogged(ctx, log, what, try, func(context.Context) slog.Level { return slog.LevelError })
}

// retryLogged is retry with a log level that severity returns after the first
// failure.
func retryLogged(ctx context.Context, log *slog.Logger, what string, try func(context.Context) error, severity func(context.Context) slog.Level) error {
	var level slog.Level
	for wait := retryFirst; ; wait = min(2*wait, retryMost) {
		err := try(ctx)
		if err == nil {
			if wait > retryFirst {
				log.Log(ctx, min(level, slog.LevelInfo), "works again", "task", what)
			}
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if wait == retryFirst {
			level = severity(ctx)
			log.Log(ctx, level, "failed, retrying", "task", what, "error", err)
		}
		if err := clock.Sleep(ctx, wait); err != nil {
			return err
		}
	}
}
