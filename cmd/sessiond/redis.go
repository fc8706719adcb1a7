package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/config"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
)

// dialRedis returns a client for the configured database, without connecting
// yet.
func dialRedis(c config.Redis, groups int, log *slog.Logger) (redis.UniversalClient, []io.Closer, error) {
	redis.SetLogger(clientLog{log})
	if !c.Embedded {
		client, err := redisconn.Dial(c.URLs, c.Mode, groups)
		if err != nil {
			return nil, nil, err
		}
		return client, []io.Closer{client}, nil
	}
	log.Warn("redis.url is embedded: NOTHING IS KEPT. Records and bindings are forgotten when sessiond ends; for trying out only")
	e, err := redisconn.OpenEmbedded()
	if err != nil {
		return nil, nil, err
	}
	return e.Client, []io.Closer{e}, nil
}

// clientLog writes the client library's messages about connections into our
// log, at debug level: there are many a second, and the client's users report
// failures themselves.
type clientLog struct{ log *slog.Logger }

func (l clientLog) Printf(ctx context.Context, format string, args ...any) {
	if l.log.Enabled(ctx, slog.LevelDebug) {
		l.log.DebugContext(ctx, "redis client: "+fmt.Sprintf(format, args...))
	}
}
