package redisconn

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

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

// InfoField returns a field of an answer to INFO, "" where there is none.
func InfoField(info, name string) string {
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// Many commands in one round trip, calls of scripts among them.

// PipelineLimit bounds the commands of one round trip: all must be answered within the
// client's read timeout.
const PipelineLimit = 512

// NewCall returns the call of a script.
func NewCall(ctx context.Context, script *redis.Script, keys []string, args ...any) *redis.Cmd {
	list := make([]any, 0, 3+len(keys)+len(args))
	list = append(list, "evalsha", script.Hash(), len(keys))
	for _, key := range keys {
		list = append(list, key)
	}
	return redis.NewCmd(ctx, append(list, args...)...)
}

// Call calls a script.
func (c *Client) Call(ctx context.Context, script *redis.Script, keys []string, args ...any) (*redis.Cmd, error) {
	call := NewCall(ctx, script, keys, args...)
	return call, c.Exchange(ctx, []redis.Cmder{call})
}

// Exchange sends the commands in order, many in one round trip, and returns the first
// error. If a server does not have a script, because it is new or lost its memory, Exchange
// loads the scripts and repeats the call.
func (c *Client) Exchange(ctx context.Context, cmds []redis.Cmder) error {
	var first error
	for chunk := range slices.Chunk(cmds, PipelineLimit) {
		if err := c.exchangeChunk(ctx, chunk); err != nil && first == nil {
			first = err
		}
	}
	return first
}

func (c *Client) exchangeChunk(ctx context.Context, cmds []redis.Cmder) error {
	err := Pipeline(ctx, c.UniversalClient, cmds)
	again := unknownScripts(cmds)
	if len(again) == 0 {
		return err
	}
	cluster, ok := c.UniversalClient.(*redis.ClusterClient)
	if !ok { // load and call in one round trip, because another connection may lead to another server
		return Pipeline(ctx, c.UniversalClient, append(c.loadScripts(ctx), again...))
	}
	err = cluster.ForEachMaster(ctx, func(ctx context.Context, server *redis.Client) error {
		return Pipeline(ctx, server, c.loadScripts(ctx))
	})
	if err != nil {
		err = fmt.Errorf("load scripts: %w", err)
		for _, c := range again {
			c.SetErr(err)
		}
		return err
	}
	return Pipeline(ctx, cluster, again)
}

// Pipeline sends the commands, at most PipelineLimit and no calls of scripts, in one round
// trip.
func Pipeline(ctx context.Context, client redis.UniversalClient, cmds []redis.Cmder) error {
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

// loadScripts returns the commands that load all scripts.
func (c *Client) loadScripts(ctx context.Context) []redis.Cmder {
	var loads scriptLoads
	for _, s := range c.scripts {
		s.Load(ctx, &loads)
	}
	return loads.cmds
}

// errNotLoaded is the answer to a script's load until the command is sent: without an error
// the script would take the empty answer for its hash.
var errNotLoaded = errors.New("script is not loaded yet")

// scriptLoads collects the load commands of scripts. A redis.Script does not give its text
// away, only loads itself.
type scriptLoads struct {
	redis.Scripter // only ScriptLoad is called
	cmds           []redis.Cmder
}

// ScriptLoad implements redis.Scripter.
func (l *scriptLoads) ScriptLoad(ctx context.Context, text string) *redis.StringCmd {
	l.cmds = append(l.cmds, redis.NewStringCmd(ctx, "script", "load", text))
	later := redis.NewStringCmd(ctx)
	later.SetErr(errNotLoaded)
	return later
}

// Together executes all of the commands in one step (MULTI).
func (c *Client) Together(ctx context.Context, cmds []redis.Cmder) error {
	if len(cmds) == 1 {
		return c.Process(ctx, cmds[0])
	}
	pipe := c.TxPipeline()
	_ = pipe.BatchProcess(ctx, cmds...) // queues
	_, err := pipe.Exec(ctx)
	return err
}

// Errors: answers of Redis to one command, or the failure of an exchange.

// Answered returns the command's own error, or that of the whole exchange if the command
// got no answer. A missing key is no error.
func Answered(cmd redis.Cmder, failed error) error {
	switch err := cmd.Err(); {
	case errors.Is(err, redis.Nil):
		return nil
	case err != nil:
		return err
	}
	if failed != nil && !IsAnswer(failed) {
		return failed
	}
	return nil
}

// IsAnswer reports whether the error is an answer of Redis to one command, and not a
// failure of the exchange.
func IsAnswer(err error) bool {
	var said redis.Error
	return errors.As(err, &said)
}

// IsFull reports whether Redis refused a write because it has no memory left.
func IsFull(err error) bool { return redis.HasErrorPrefix(err, "OOM") }

// IsWrongType reports whether the error says that the key has another type than the command
// needs.
func IsWrongType(err error) bool { return err != nil && redis.HasErrorPrefix(err, "WRONGTYPE") }

// UnlessWrongType returns the error of a command, nil if the key has the wrong type.
func UnlessWrongType(err error) error {
	if IsWrongType(err) {
		return nil
	}
	return err
}

// Failure returns the first error of an exchange and its commands, except for missing keys
// and keys of the wrong type, which fail alone.
func Failure(cmds []redis.Cmder, err error) error {
	if err == nil {
		return nil // then no command has an error
	}
	for _, c := range cmds {
		if err := UnlessWrongType(c.Err()); err != nil && !errors.Is(err, redis.Nil) {
			return err
		}
	}
	if errors.Is(err, redis.Nil) {
		return nil
	}
	return UnlessWrongType(err)
}

// isAstray reports whether the address may lead to another server by now, which takes
// writes: the answer came from a replica or a server that starts, or there was none. Other
// servers answer that they cannot write at present: full, unable to save, configured not
// to.
func isAstray(err error) bool {
	if !IsAnswer(err) || redis.IsReadOnlyError(err) {
		return true
	}
	for _, prefix := range []string{"LOADING", "MASTERDOWN", "CLUSTERDOWN", "NOAUTH"} {
		if redis.HasErrorPrefix(err, prefix) {
			return true
		}
	}
	return false
}

// Scans.

// ScanHash yields the fields of a hash in batches, each name followed by its value. An
// error of yield ends the scan.
func (c *Client) ScanHash(ctx context.Context, key string, yield func([]string) error) error {
	for cursor := uint64(0); ; {
		fields, next, err := c.ScanHashBatch(ctx, key, cursor)
		if err != nil {
			return err
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

// ScanHashBatch returns one batch of a scan of a hash, each field's name followed by its
// value, and the cursor of the next batch. A scan begins with cursor 0, and is over when the
// next one is 0.
func (c *Client) ScanHashBatch(ctx context.Context, key string, cursor uint64) (fields []string, next uint64, err error) {
	fields, next, err = c.HScan(ctx, key, cursor, "", ScanCount).Result()
	if err != nil {
		return nil, 0, fmt.Errorf("scan %s: %w", key, err)
	}
	return fields, next, nil
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

// errNoMore ends produce after use has failed.
var errNoMore = errors.New("nobody reads on")

// ReadAhead passes the batches of produce to use, one after the other, and reads the next
// meanwhile, so that Redis and the reader work at once. While a slow reader works, one
// batch waits in memory and no command in Redis. ReadAhead returns after both functions.
func ReadAhead[T any](ctx context.Context, produce func(context.Context, func(T) error) error, use func(T) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	batches, done := make(chan T), make(chan error, 1)
	go func() {
		done <- produce(ctx, func(batch T) error {
			select {
			case batches <- batch:
				return nil
			case <-ctx.Done():
				return errNoMore
			}
		})
		close(batches)
	}()
	var failed error
	for batch := range batches {
		if failed = use(batch); failed != nil {
			cancel()
			break
		}
	}
	err := <-done
	if failed != nil {
		return failed
	}
	if errors.Is(err, errNoMore) {
		return ctx.Err()
	}
	return err
}
