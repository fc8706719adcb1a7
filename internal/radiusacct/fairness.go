package radiusacct

import (
	"context"
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/clock"
)

const (
	// quietTime is how long a calm client is remembered, and how long a client
	// must have been without a storm to be calm again.
	quietTime = time.Second
	// narrowBatch is the number of a storm's requests that are recorded at once while there
	// are calm clients, which may have to wait for them.
	narrowBatch = 2
	// longestPause bounds each pause of a storm for calm clients.
	longestPause = 10 * time.Millisecond
)

// A fairness remembers which clients were calm during the last second, so that storms are
// slowed only while somebody would wait for them. The zero value is ready.
type fairness struct {
	narrow sync.Mutex // held during a storm's turn beside calm clients

	mu            sync.Mutex
	latest, other quietClient // of different realms
}

type quietClient struct {
	realm *realm
	at    time.Time
}

// yieldToQuiet serves part of a storm while there are calm clients. It serves one storm at
// a time and then pauses for as long as that took, so that neither the Recorder nor the
// processors are ever busy with storms alone.
func (c *fairness) yieldToQuiet(ctx context.Context, serve func()) {
	c.narrow.Lock()
	defer c.narrow.Unlock()
	began := time.Now()
	serve()
	_ = clock.Sleep(ctx, min(time.Since(began), longestPause)) // ends early with ctx
}

// storm tells that a client has a storm. It is not calm for a second after its queue
// drained, or two large clients would keep slowing each other.
func (r *realm) storm(now time.Time) { r.stormed.Store(now.UnixNano()) }

// note records a client with few requests, if it is calm.
func (c *fairness) note(r *realm, now time.Time) {
	if now.UnixNano()-r.stormed.Load() < int64(quietTime) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.latest.realm != r {
		c.other = c.latest
	}
	c.latest = quietClient{r, now}
}

// hasOther reports whether another client has been calm within quietTime.
func (c *fairness) hasOther(r *realm, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, known := range [...]quietClient{c.latest, c.other} {
		if known.realm != nil && known.realm != r && now.Sub(known.at) < quietTime {
			return true
		}
	}
	return false
}
