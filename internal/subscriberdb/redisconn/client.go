package redisconn

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"
)

// ScanCount is the number of keys that one SCAN or HSCAN examines, and so about the size of
// a batch. Redis takes 2 to 5 µs for each key (subscriberdb.BenchmarkScale).
const ScanCount = 500

// A Client has the servers of one database, and the state of its connections to them.
type Client struct {
	redis.UniversalClient

	scripts []*redis.Script
	redials *redials // of its connections
	health  *health
}

// New returns a Client for a client from Dial, or for another one, whose connections are
// then never redialled. The scripts are loaded into servers that do not have them.
func New(client redis.UniversalClient, scripts ...*redis.Script) *Client {
	dialled, ok := client.(dialledClient)
	if !ok {
		dialled = dialledClient{client, &redials{}}
	}
	return &Client{dialled.UniversalClient, scripts, dialled.redials, newHealth()}
}

// EachMaster runs f on every server that takes writes; for a Cluster these are several, and
// f may be called concurrently.
func (c *Client) EachMaster(ctx context.Context, f func(context.Context, redis.UniversalClient) error) error {
	if cluster, ok := c.UniversalClient.(*redis.ClusterClient); ok {
		return cluster.ForEachMaster(ctx, func(ctx context.Context, c *redis.Client) error { return f(ctx, c) })
	}
	return f(ctx, c.UniversalClient)
}

// ServerOf returns a client of the server that holds the key, for commands that concern a
// whole server.
func (c *Client) ServerOf(ctx context.Context, key string) (redis.UniversalClient, error) {
	if cluster, ok := c.UniversalClient.(*redis.ClusterClient); ok {
		return cluster.MasterForKey(ctx, key)
	}
	return c.UniversalClient, nil
}

// Address returns the address of a server; "" for a client of several.
func Address(server redis.UniversalClient) string {
	if c, ok := server.(*redis.Client); ok {
		return c.Options().Addr
	}
	return ""
}

// Database returns the number of the database that the client uses; a Cluster has only 0.
func Database(server redis.UniversalClient) int {
	if c, ok := server.(*redis.Client); ok {
		return c.Options().DB
	}
	return 0
}

// ScanHash yields the fields of a hash in batches, each name followed by its value. An
// error of yield ends the scan.
func (c *Client) ScanHash(ctx context.Context, key string, yield func([]string) error) error {
	for cursor := uint64(0); ; {
		fields, next, err := c.HScan(ctx, key, cursor, "", ScanCount).Result()
		if err != nil {
			return fmt.Errorf("scan %s: %w", key, err)
		}
		if len(fields) > 0 {
			if err := yield(fields); err != nil {
				return err
			}
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

// ScanKeys yields the names of the keys of one type that match a pattern, in batches, in no
// order, with the server that holds them. All keys are on the server of the pattern's hash
// tag. An error of yield ends the scan.
func (c *Client) ScanKeys(
	ctx context.Context, pattern, kind string, yield func(server redis.UniversalClient, names []string) error,
) error {
	server, err := c.ServerOf(ctx, pattern)
	if err != nil {
		return fmt.Errorf("find server of %s: %w", pattern, err)
	}
	for cursor := uint64(0); ; {
		names, next, err := server.ScanType(ctx, cursor, pattern, ScanCount, kind).Result()
		if err != nil {
			return fmt.Errorf("scan %s: %w", pattern, err)
		}
		if err := yield(server, names); err != nil {
			return err
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}
