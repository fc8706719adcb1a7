package facts

import (
	"context"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/config"
	"github.com/sessiond/sessiond/internal/doctor"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
	"github.com/sessiond/sessiond/internal/subscriberdb/removals"
)

const (
	redisWait = 5 * time.Second // bounds the time for the facts of all servers
	pings     = 21              // whose median is the latency
)

// Redis reads the facts of each server of the database that takes writes, within a few seconds.
// Where none answers, they are of the configured addresses, and say why.
func Redis(ctx context.Context, c config.Config) (servers []doctor.Redis, err error) {
	ctx, cancel := context.WithTimeout(ctx, redisWait)
	defer cancel()
	dialled, err := redisconn.Dial(c.Redis.URLs, c.Redis.Mode, 1)
	if err != nil {
		return nil, err
	}
	defer dialled.Close()
	var mu sync.Mutex // a Cluster has several servers
	err = redisconn.New(dialled).EachMaster(ctx, func(ctx context.Context, server redis.UniversalClient) error {
		r := serverFacts(ctx, server, &c)
		mu.Lock()
		defer mu.Unlock()
		servers = append(servers, r)
		return nil
	})
	if err != nil && len(servers) == 0 {
		for _, u := range c.Redis.URLs {
			servers = append(servers, doctor.Redis{Address: addressIn(u), Err: err.Error()})
		}
	}
	slices.SortFunc(servers, func(a, b doctor.Redis) int { return strings.Compare(a.Address, b.Address) })
	return servers, nil
}

// addressIn returns the server of a url, without user, password and options.
func addressIn(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "redis.url"
	}
	if u.Scheme == "unix" {
		return u.Path
	}
	return u.Host
}

// serverFacts reads the facts of one server, and changes nothing there.
func serverFacts(ctx context.Context, server redis.UniversalClient, c *config.Config) doctor.Redis {
	r := doctor.Redis{Address: redisconn.Address(server)}
	r.CLI = commandLine(server, r.Address)
	if err := server.Ping(ctx).Err(); err != nil && !redis.HasErrorPrefix(err, "NOPERM") {
		r.Err = err.Error()
		return r
	}
	readInfo(ctx, server, &r)
	readConfig(ctx, server, &r)
	r.User, _ = server.Do(ctx, "acl", "whoami").Text()
	if r.User == "" {
		r.User = userOf(server)
	}
	readRights(ctx, server, c, &r)
	r.Latency, r.Ahead = timings(ctx, server)
	return r
}

// commandLine returns the redis-cli that leads to a server, without user and password.
func commandLine(server redis.UniversalClient, address string) string {
	line := "redis-cli"
	if c, ok := server.(*redis.Client); ok {
		if c.Options().Network == "unix" {
			return line + " -s " + doctor.Quote(address)
		}
		if c.Options().TLSConfig != nil {
			line += " --tls"
		}
	}
	if host, port, err := net.SplitHostPort(address); err == nil {
		line += " -h " + doctor.Quote(host) + " -p " + port
	}
	return line
}

func userOf(server redis.UniversalClient) string {
	if c, ok := server.(*redis.Client); ok {
		return c.Options().Username
	}
	return ""
}

func readInfo(ctx context.Context, server redis.UniversalClient, r *doctor.Redis) {
	var info strings.Builder
	for _, section := range []string{"server", "replication", "persistence", "memory"} {
		part, err := server.Info(ctx, section).Result()
		if err != nil {
			return // not allowed: the rights tell it
		}
		info.WriteString(part)
	}
	field := func(name string) string { return redisconn.InfoField(info.String(), name) }
	r.Version, r.Replica, r.AppendOnly = field("redis_version"), field("role") == "slave", field("aof_enabled") == "1"
	r.Policy, r.ConfigFile = field("maxmemory_policy"), field("config_file")
	r.Memory, r.MaxMemory = number(field("used_memory")), number(field("maxmemory"))
}

// number reads a field of INFO; 0 for one that is not there.
func number(text string) uint64 {
	n, _ := strconv.ParseUint(text, 10, 64)
	return n
}

func readConfig(ctx context.Context, server redis.UniversalClient, r *doctor.Redis) {
	get := func(name string) (string, bool) {
		values, err := server.ConfigGet(ctx, name).Result()
		return values[name], err == nil
	}
	r.Fsync, _ = get("appendfsync")
	save, known := get("save")
	r.Snapshots = !known || save != ""
	if r.Events, r.EventsKnown = get("notify-keyspace-events"); r.EventsKnown {
		r.EventsLacking = removals.MissingFlags(r.Events)
	}
}

// readRights reads the commands, keys and channels that the user of Redis may not use, of those that
// sessiond uses. Redis checks rights when it queues the commands of a transaction, which is
// discarded.
func readRights(ctx context.Context, server redis.UniversalClient, c *config.Config, r *doctor.Redis) {
	begin, end := redis.NewStatusCmd(ctx, "multi"), redis.NewStatusCmd(ctx, "discard")
	_ = redisconn.Pipeline(ctx, server, []redis.Cmder{begin, end})
	if begin.Err() != nil || end.Err() != nil { // without a transaction the commands would be carried out
		r.Refused = []string{"multi", "exec", "discard"}
		return
	}
	commands := needed(codec.ProbeKey(c.Groups[0].Name, c.Node))
	for _, key := range neededKeys(c) {
		commands = append(commands, []any{"set", key, ""})
	}
	configure := redis.NewCmd(ctx, "config", "set", "notify-keyspace-events", "")
	cmds := []redis.Cmder{redis.NewStatusCmd(ctx, "multi"), configure}
	for _, words := range commands {
		cmds = append(cmds, redis.NewCmd(ctx, words...))
	}
	cmds = append(cmds, redis.NewStatusCmd(ctx, "discard"))
	_ = redisconn.Pipeline(ctx, server, cmds)
	r.Configurable = !isRefused(configure)
	for _, cmd := range cmds {
		if cmd == redis.Cmder(configure) || !isRefused(cmd) {
			continue
		}
		switch text := cmd.Err().Error(); {
		case strings.Contains(text, "channel"):
			r.RefusedEvents = true
		case strings.Contains(text, "key"):
			r.RefusedKeys = appendNew(r.RefusedKeys, keyIn(cmd))
		default:
			r.Refused = appendNew(r.Refused, ruleOf(cmd))
		}
	}
}

func isRefused(cmd redis.Cmder) bool {
	return cmd.Err() != nil && redis.HasErrorPrefix(cmd.Err(), "NOPERM")
}

func appendNew(list []string, text string) []string {
	if slices.Contains(list, text) {
		return list
	}
	return append(list, text)
}

// ruleOf returns the name of a command as rules of an ACL have it.
func ruleOf(cmd redis.Cmder) string {
	switch name := cmd.Name(); name {
	case "memory", "script", "xinfo":
		return name + "|" + cmd.Args()[1].(string)
	default:
		return name
	}
}

// keyIn returns the key among the arguments of a command.
func keyIn(cmd redis.Cmder) string {
	for _, a := range cmd.Args() {
		if text, ok := a.(string); ok && strings.Contains(text, "sessiond:") {
			return text
		}
	}
	return ""
}

// needed returns the commands that sessiond uses, with a key.
func needed(k string) [][]any {
	return [][]any{
		{"get", k}, {"mget", k}, {"set", k, ""}, {"append", k, ""}, {"del", k}, {"unlink", k}, {"exists", k}, {"type", k},
		{"pexpire", k, 1}, {"pttl", k}, {"memory", "usage", k},
		{"hget", k, "f"}, {"hmget", k, "f"}, {"hgetall", k}, {"hlen", k}, {"hscan", k, 0}, {"hset", k, "f", ""}, {"hdel", k, "f"}, {"hincrby", k, "f", 1},
		{"sadd", k, "m"}, {"srem", k, "m"}, {"smembers", k},
		{"xadd", k, "*", "f", ""}, {"xread", "streams", k, "0"}, {"xrange", k, "-", "+"}, {"xrevrange", k, "+", "-"}, {"xlen", k}, {"xdel", k, "0-1"},
		{"xtrim", k, "maxlen", 1}, {"xinfo", "stream", k},
		{"evalsha", strings.Repeat("0", 40), 1, k}, {"script", "load", "return 1"}, {"subscribe", "__keyevent@0__:del"},
		{"info"}, {"time"}, {"ping"},
	}
}

// neededKeys returns a key of each kind.
func neededKeys(c *config.Config) []string {
	keys := []string{codec.SettingsKey, codec.AuditKey(codec.Reserved)}
	for _, g := range c.Groups {
		keys = append(keys, codec.ProbeKey(g.Name, c.Node))
	}
	return keys
}

// timings returns the median of some round trips, and how far the server's clock is ahead of this
// machine's.
func timings(ctx context.Context, server redis.UniversalClient) (latency, ahead time.Duration) {
	var trips []time.Duration
	for range pings {
		began := time.Now()
		if err := server.Ping(ctx).Err(); err != nil {
			return 0, 0
		}
		trips = append(trips, time.Since(began))
	}
	slices.Sort(trips)
	latency = trips[len(trips)/2]
	began := time.Now()
	at, err := server.Time(ctx).Result()
	if err != nil {
		return latency, 0
	}
	took := time.Since(began)
	return latency, at.Sub(began.Add(took / 2))
}
