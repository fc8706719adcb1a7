package radiusacct

import (
	"context"
	"sync"
	"time"
)

const (
	// companyTime is how long a calm client is remembered, and how long a client
	// must have been without a storm to be calm.
	companyTime = time.Second
	// narrowBatch is the requests of a storm that are recorded at once while there
	// are calm clients: what they may have to wait for.
	narrowBatch = 2
	// longestPause bounds how long a storm pauses for calm clients at a time.
	longestPause = 10 * time.Millisecond
)

// A fairness knows which calm clients there are at present, so that storms can make
// way. The zero value is ready.
type fairness struct {
	narrow sync.Mutex // held while a storm has its turn beside calm clients

	mu            sync.Mutex
	latest, other quietClient // of different clients
}

type quietClient struct {
	realm *realm
	at    time.Time
}

// yieldToQuiet serves part of a storm beside calm clients: of all storms one at a time,
// and then none for as long as that took, so that neither the Recorder nor the
// processors are ever busy with storms alone.
func (c *fairness) yieldToQuiet(ctx context.Context, serve func()) {
	c.narrow.Lock()
	defer c.narrow.Unlock()
	began := time.Now()
	serve()
	pause := time.NewTimer(min(time.Since(began), longestPause))
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-ctx.Done():
	}
}

// storm tells that a client has a storm. It is not calm as soon as it pauses for
// breath, or else large clients would hold each other back.
func (r *realm) storm(now time.Time) { r.stormed.Store(now.UnixNano()) }

// note tells that a client has little waiting.
func (c *fairness) note(r *realm, now time.Time) {
	if now.UnixNano()-r.stormed.Load() < int64(companyTime) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.latest.realm != r {
		c.other = c.latest
	}
	c.latest = quietClient{r, now}
}

// hasOther reports whether anybody but this client has been calm lately.
func (c *fairness) hasOther(r *realm, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, known := range [...]quietClient{c.latest, c.other} {
		if known.realm != nil && known.realm != r && now.Sub(known.at) < companyTime {
			return true
		}
	}
	return false
}
