package main

import (
	"io"
	"log/slog"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/config"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// dialRedis returns a client for the configured database. Nothing is sent yet.
func dialRedis(c config.Redis, log *slog.Logger) (redis.UniversalClient, []io.Closer, error) {
	if !c.Embedded {
		client, err := subscriberdb.Dial(c.URLs, c.Mode)
		if err != nil {
			return nil, nil, err
		}
		return client, []io.Closer{client}, nil
	}
	log.Warn("redis.url is embedded: NOTHING IS KEPT. Records and bindings are forgotten when sessiond ends; for trying out only")
	e, err := subscriberdb.OpenEmbedded()
	if err != nil {
		return nil, nil, err
	}
	return e.Client, []io.Closer{e}, nil
}
