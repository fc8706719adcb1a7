package subscriberdb

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/redis/go-redis/v9"
)

// call is one command of a pipeline: a script, or a plain GET.
type call struct {
	script *redis.Script // nil for GET keys[0]
	keys   []string
	args   []any

	reply any
	err   error
}

// pipelineLimit bounds the calls of one round trip: what they are answered with
// must be done before the client's read timeout.
const pipelineLimit = 512

// run sends the calls in order, many in one round trip. A server that does not know
// a script yet, or has forgotten it with its memory, is taught it and asked again.
func (db *DB) run(ctx context.Context, calls []*call) {
	for chunk := range slices.Chunk(calls, pipelineLimit) {
		db.runChunk(ctx, chunk)
	}
}

func (db *DB) runChunk(ctx context.Context, calls []*call) {
	pipeline(ctx, db.client, calls)
	again := unknownScripts(calls)
	if len(again) == 0 {
		return
	}
	if err := db.loadScripts(ctx); err != nil {
		for _, c := range again {
			c.err = err
		}
		return
	}
	pipeline(ctx, db.client, again)
}

func pipeline(ctx context.Context, client redis.UniversalClient, calls []*call) {
	pipe := client.Pipeline()
	cmds := make([]redis.Cmder, len(calls))
	for i, c := range calls {
		if c.script == nil {
			cmds[i] = pipe.Get(ctx, c.keys[0])
		} else {
			cmds[i] = pipe.EvalSha(ctx, c.script.Hash(), c.keys, c.args...)
		}
	}
	_, err := pipe.Exec(ctx)
	for i, c := range calls {
		c.take(cmds[i], err)
	}
}

// take reads the command's own outcome. When the pipeline as a whole failed
// before a reply, every command carries that error.
func (c *call) take(cmd redis.Cmder, pipeErr error) {
	c.reply, c.err = nil, cmd.Err()
	switch cmd := cmd.(type) {
	case *redis.StringCmd:
		if errors.Is(c.err, redis.Nil) {
			c.err = nil
		}
		c.reply = cmd.Val()
	case *redis.Cmd:
		c.reply = cmd.Val()
		if c.err == nil && c.reply == nil {
			c.err = fmt.Errorf("script was not answered: %w", pipeErr)
		}
	}
}

func unknownScripts(calls []*call) []*call {
	var unknown []*call
	for _, c := range calls {
		if c.err != nil && redis.HasErrorPrefix(c.err, "NOSCRIPT") {
			unknown = append(unknown, c)
		}
	}
	return unknown
}

func (db *DB) loadScripts(ctx context.Context) error {
	return db.eachMaster(ctx, func(ctx context.Context, client redis.UniversalClient) error {
		for _, s := range []*redis.Script{commitScript, buryScript, sweptScript} {
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
