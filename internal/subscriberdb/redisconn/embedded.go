package redisconn

import (
	"fmt"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

// Embedded is a Redis inside this process, for trying out: it keeps nothing
// when the process ends. It sends no keyspace notifications; subscriberdb looks for
// expired and removed records instead, and so makes them expire.
type Embedded struct {
	Client redis.UniversalClient

	server *miniredis.Miniredis
}

// embeddedTimeout is generous: scripts take their time in there.
const embeddedTimeout = 30 * time.Second

// OpenEmbedded starts one on a loopback port, where redis-cli reaches it.
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

// Addr returns host and port on which the embedded Redis listens.
func (e *Embedded) Addr() string { return e.server.Addr() }

// Close stops it and forgets everything.
func (e *Embedded) Close() error {
	defer e.server.Close()
	return e.Client.Close()
}
