package subscriberdb

import (
	"context"
	"fmt"
	"slices"

	"github.com/redis/go-redis/v9"
)

// pipelineLimit bounds the commands of one round trip: what they are answered
// with must be done before the client's read timeout.
const pipelineLimit = 512

// newCall makes the call of a script.
func newCall(ctx context.Context, script *redis.Script, keys []string, args ...any) *redis.Cmd {
	list := make([]any, 0, 3+len(keys)+len(args))
	list = append(list, "evalsha", script.Hash(), len(keys))
	for _, key := range keys {
		list = append(list, key)
	}
	return redis.NewCmd(ctx, append(list, args...)...)
}

// exchange sends the commands in order, many in one round trip, and returns the
// first error. A server that does not know a script yet, or has forgotten it with
// its memory, is taught it and asked again.
func (db *DB) exchange(ctx context.Context, cmds []redis.Cmder) error {
	var first error
	for chunk := range slices.Chunk(cmds, pipelineLimit) {
		if err := db.exchangeChunk(ctx, chunk); err != nil && first == nil {
			first = err
		}
	}
	return first
}

func (db *DB) exchangeChunk(ctx context.Context, cmds []redis.Cmder) error {
	err := pipeline(ctx, db.client, cmds)
	again := unknownScripts(cmds)
	if len(again) == 0 {
		return err
	}
	if err := db.loadScripts(ctx); err != nil {
		for _, c := range again {
			c.SetErr(err)
		}
		return err
	}
	return pipeline(ctx, db.client, again)
}

func pipeline(ctx context.Context, client redis.UniversalClient, cmds []redis.Cmder) error {
	pipe := client.Pipeline()
	for _, cmd := range cmds {
		_ = pipe.Process(ctx, cmd) // queues
	}
	_, err := pipe.Exec(ctx)
	return err
}

func unknownScripts(cmds []redis.Cmder) []redis.Cmder {
	var unknown []redis.Cmder
	for _, c := range cmds {
		if err := c.Err(); err != nil && redis.HasErrorPrefix(err, "NOSCRIPT") {
			c.SetErr(nil)
			unknown = append(unknown, c)
		}
	}
	return unknown
}

func (db *DB) loadScripts(ctx context.Context) error {
	return db.eachMaster(ctx, func(ctx context.Context, client redis.UniversalClient) error {
		for _, s := range []*redis.Script{commitScript, beginScript, refreshScript, endScript, buryScript, sweptScript, takeBackScript, nasScript, countScript} {
			if err := s.Load(ctx, client).Err(); err != nil {
				return fmt.Errorf("load script: %w", err)
			}
		}
		return nil
	})
}

// eachMaster runs f on every server that takes writes; of a Cluster there are
// several, and they may be asked concurrently.
func (db *DB) eachMaster(ctx context.Context, f func(context.Context, redis.UniversalClient) error) error {
	if cluster, ok := db.client.(*redis.ClusterClient); ok {
		return cluster.ForEachMaster(ctx, func(ctx context.Context, c *redis.Client) error { return f(ctx, c) })
	}
	return f(ctx, db.client)
}

// serverOf returns a client of the server that holds the key, for commands that
// ask a whole server.
func (db *DB) serverOf(ctx context.Context, key string) (redis.UniversalClient, error) {
	if cluster, ok := db.client.(*redis.ClusterClient); ok {
		return cluster.MasterForKey(ctx, key)
	}
	return db.client, nil
}
