package radiusacct

import (
	"sync"
	"time"
)

// A bucket is a token bucket. It fills at a rate, up to the tokens of one second. The zero
// value is full.
type bucket struct {
	mu      sync.Mutex
	missing float64 // tokens
	at      time.Time
}

// take takes a token, or returns false if there is none. The rate is in tokens a second and
// at least 1.
func (b *bucket) take(now time.Time, rate int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if refill := now.Sub(b.at).Seconds() * float64(rate); refill > 0 {
		b.missing = max(0, b.missing-refill)
		b.at = now
	}
	if b.missing+1 > float64(rate) {
		return false
	}
	b.missing++
	return true
}
