package txn

import (
	"time"

	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
)

// A Group is a group, as far as transactions need it.
type Group struct {
	Name         string
	Feed, Online string // keys that every call of the group names

	recordTTL time.Duration
	clientTTL map[string]time.Duration
}

// NewGroup returns a group whose records live for recordTTL without news, those of some
// RADIUS clients for clientTTL; 0 is for ever.
func NewGroup(name string, recordTTL time.Duration, clientTTL map[string]time.Duration) *Group {
	return &Group{name, codec.FeedKey(name), codec.OnlineKey(name), recordTTL, clientTTL}
}

// TTL is how long a record lives without news of its client; 0 is for ever.
func (g *Group) TTL(client string) time.Duration {
	if ttl, ok := g.clientTTL[client]; ok {
		return ttl
	}
	return g.recordTTL
}
