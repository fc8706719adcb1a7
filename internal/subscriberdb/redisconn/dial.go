package redisconn

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"

	"github.com/redis/go-redis/v9"
)

// Modes of Dial.
const (
	ModeStandalone = ""         // one server, one url
	ModeSentinel   = "sentinel" // urls of sentinels, with ?master_name=
	ModeCluster    = "cluster"  // urls of some of the nodes
)

// connections is the most connections to a server besides those that wait for feeds. They
// are opened as needed; the default of the client library depends on the number of CPUs.
const connections = 64

// dialAttempts is the number of attempts to open a connection. Callers retry, and find out
// sooner that a server is down.
const dialAttempts = 1

// Dial returns a client for the given urls: redis://, rediss:// (TLS) or unix://, in the
// syntax of redis.ParseURL. Of several urls the first has the user, password, TLS and
// options. Dial does not connect; the client connects and reconnects as needed. Each feed
// that is followed waits on a connection of its own: feeds, their number, is added to the
// limit of connections, unless the first url sets that (pool_size).
func Dial(urls []string, mode string, feeds int) (redis.UniversalClient, error) {
	if len(urls) == 0 {
		return nil, errors.New("redis: no url")
	}
	dial := map[string]func([]string, int, *redials) (redis.UniversalClient, error){
		ModeStandalone: dialServer, ModeSentinel: dialSentinel, ModeCluster: dialCluster,
	}[mode]
	if dial == nil {
		return nil, fmt.Errorf("redis: unknown mode %q, want sentinel or cluster", mode)
	}
	r := &redials{}
	client, err := dial(urls, connections+feeds, r)
	if err != nil {
		return nil, err
	}
	return dialledClient{client, r}, nil
}

func dialServer(urls []string, pool int, r *redials) (redis.UniversalClient, error) {
	if len(urls) > 1 {
		return nil, errors.New("redis: several urls need mode sentinel or cluster")
	}
	o, err := redis.ParseURL(urls[0])
	if err != nil {
		return nil, fmt.Errorf("redis: %w", withoutSecret(err))
	}
	o.ContextTimeoutEnabled = true
	o.PoolSize = cmp.Or(o.PoolSize, pool)
	o.DialerRetries = cmp.Or(o.DialerRetries, dialAttempts)
	o.Dialer = r.dialer(o.DialTimeout, o.TLSConfig)
	return redis.NewClient(o), nil
}

func dialSentinel(urls []string, pool int, r *redials) (redis.UniversalClient, error) {
	o, err := redis.ParseFailoverURL(urls[0])
	if err != nil {
		return nil, fmt.Errorf("redis sentinel: %w", withoutSecret(err))
	}
	if o.MasterName == "" {
		return nil, errors.New("redis sentinel: the first url lacks ?master_name=")
	}
	for _, u := range urls[1:] {
		more, err := redis.ParseFailoverURL(u)
		if err != nil {
			return nil, fmt.Errorf("redis sentinel: %w", withoutSecret(err))
		}
		o.SentinelAddrs = append(o.SentinelAddrs, more.SentinelAddrs...)
	}
	o.ContextTimeoutEnabled = true
	o.PoolSize = cmp.Or(o.PoolSize, pool)
	o.DialerRetries = cmp.Or(o.DialerRetries, dialAttempts)
	o.Dialer = r.dialer(o.DialTimeout, o.TLSConfig)
	return redis.NewFailoverClient(o), nil
}

func dialCluster(urls []string, pool int, r *redials) (redis.UniversalClient, error) {
	o, err := redis.ParseClusterURL(urls[0])
	if err != nil {
		return nil, fmt.Errorf("redis cluster: %w", withoutSecret(err))
	}
	for _, u := range urls[1:] {
		more, err := redis.ParseClusterURL(u)
		if err != nil {
			return nil, fmt.Errorf("redis cluster: %w", withoutSecret(err))
		}
		o.Addrs = append(o.Addrs, more.Addrs...)
	}
	o.ContextTimeoutEnabled = true
	o.PoolSize = cmp.Or(o.PoolSize, pool)
	o.DialerRetries = cmp.Or(o.DialerRetries, dialAttempts)
	o.Dialer = r.dialer(o.DialTimeout, o.TLSConfig)
	return redis.NewClusterClient(o), nil
}

// withoutSecret removes the url, which may contain a password, from the error.
func withoutSecret(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return fmt.Errorf("bad url: %w", u.Err)
	}
	return err
}
