package subscriberdb

import (
	"context"
	"errors"
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
	cluster, ok := db.client.(*redis.ClusterClient)
	if !ok { // in one round trip: another connection may lead to another server
		return pipeline(ctx, db.client, append(loadScripts(ctx), again...))
	}
	err = cluster.ForEachMaster(ctx, func(ctx context.Context, server *redis.Client) error {
		return pipeline(ctx, server, loadScripts(ctx))
	})
	if err != nil {
		err = fmt.Errorf("load scripts: %w", err)
		for _, c := range again {
			c.SetErr(err)
		}
		return err
	}
	return pipeline(ctx, cluster, again)
}

func pipeline(ctx context.Context, client redis.UniversalClient, cmds []redis.Cmder) error {
	pipe := client.Pipeline()
	_ = pipe.BatchProcess(ctx, cmds...) // queues
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

// scripts are all that a server has to know.
var scripts = []*redis.Script{
	commitScript, beginScript, refreshScript, endScript, buryScript, sweptScript, takeBackScript, nasScript, countScript,
	ownerScript, positionScript, trimScript, moveScript, aheadScript, renewScript, discardScript, discardTextScript,
}

// loadScripts returns the commands that load all scripts.
func loadScripts(ctx context.Context) []redis.Cmder {
	var loads scriptLoads
	for _, s := range scripts {
		s.Load(ctx, &loads)
	}
	return loads.cmds
}

// errNotLoaded keeps a script from taking the answer to its loading, which there is not
// yet, for its hash.
var errNotLoaded = errors.New("script is not loaded yet")

// scriptLoads collects what a script sends to be loaded: only the script knows its text.
type scriptLoads struct {
	redis.Scripter // nothing but ScriptLoad is called
	cmds           []redis.Cmder
}

// ScriptLoad implements redis.Scripter.
func (l *scriptLoads) ScriptLoad(ctx context.Context, text string) *redis.StringCmd {
	l.cmds = append(l.cmds, redis.NewStringCmd(ctx, "script", "load", text))
	later := redis.NewStringCmd(ctx)
	later.SetErr(errNotLoaded)
	return later
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
