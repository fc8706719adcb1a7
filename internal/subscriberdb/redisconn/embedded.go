package redisconn

import (
	"fmt"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

// Embedded is a Redis inside this process, for trials: its data end with the process. It
// sends no keyspace notifications; instead subscriberdb scans for expired and removed
// records, which also makes them expire.
type Embedded struct {
	Client redis.UniversalClient

	server *miniredis.Miniredis
}

// embeddedTimeout is long because scripts are slow in the embedded server.
const embeddedTimeout = 30 * time.Second

// OpenEmbedded starts an embedded Redis on a loopback port, where redis-cli can connect.
func OpenEmbedded() (*Embedded, error) {
	server := miniredis.NewMiniRedis()
	server.ClockTTL(true)
	if err := server.StartAddr("127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("start embedded redis: %w", err)
	}
	client := redis.NewClient(&redis.Options{
		Addr: server.Addr(), ContextTimeoutEnabled: true, ReadTimeout: embeddedTimeout,
	})
	return &Embedded{Client: client, server: server}, nil
}

// Addr returns host and port of the embedded Redis.
func (e *Embedded) Addr() string { return e.server.Addr() }

// Close stops the embedded Redis and drops its data.
func (e *Embedded) Close() error {
	defer e.server.Close()
	return e.Client.Close()
}
