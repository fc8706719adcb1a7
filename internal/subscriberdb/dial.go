package subscriberdb

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

// poolSize bounds the connections to a server, which are made as needed. Each group
// waits on one of its own for its feed, so the client's default, 10 for each
// processor, can be too few.
const poolSize = 64

// Dial returns a client for the given urls: redis://, rediss:// (TLS) or
// unix://, as redis.ParseURL reads them. Of several urls the first tells user,
// password, TLS and options. It does not connect yet; the client connects, and
// connects again, by itself.
func Dial(urls []string, mode string) (redis.UniversalClient, error) {
	if len(urls) == 0 {
		return nil, errors.New("redis: no url")
	}
	switch mode {
	case ModeStandalone:
		return dialServer(urls)
	case ModeSentinel:
		return dialSentinel(urls)
	case ModeCluster:
		return dialCluster(urls)
	}
	return nil, fmt.Errorf("redis: unknown mode %q, want sentinel or cluster", mode)
}

func dialServer(urls []string) (redis.UniversalClient, error) {
	if len(urls) > 1 {
		return nil, errors.New("redis: several urls need mode sentinel or cluster")
	}
	o, err := redis.ParseURL(urls[0])
	if err != nil {
		return nil, fmt.Errorf("redis: %w", withoutSecret(err))
	}
	o.ContextTimeoutEnabled = true
	o.PoolSize = cmp.Or(o.PoolSize, poolSize)
	o.Dialer = directDialer(o.DialTimeout, o.TLSConfig)
	return redis.NewClient(o), nil
}

func dialSentinel(urls []string) (redis.UniversalClient, error) {
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
	o.PoolSize = cmp.Or(o.PoolSize, poolSize)
	o.Dialer = directDialer(o.DialTimeout, o.TLSConfig)
	return redis.NewFailoverClient(o), nil
}

func dialCluster(urls []string) (redis.UniversalClient, error) {
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
	o.PoolSize = cmp.Or(o.PoolSize, poolSize)
	o.Dialer = directDialer(o.DialTimeout, o.TLSConfig)
	return redis.NewClusterClient(o), nil
}

// withoutSecret keeps a url, which may hold a password, out of the error.
func withoutSecret(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return fmt.Errorf("bad url: %w", u.Err)
	}
	return err
}
