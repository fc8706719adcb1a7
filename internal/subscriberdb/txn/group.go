package txn

import (
	"time"

	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
)

// A Group holds the data of a group for transactions.
type Group struct {
	Name         string
	Feed, Online string // keys in every call of the group

	recordTTL time.Duration
	clientTTL map[string]time.Duration
}

// NewGroup returns a group whose records expire recordTTL after their last refresh, those
// of the RADIUS clients in clientTTL after that time; 0 means never.
func NewGroup(name string, recordTTL time.Duration, clientTTL map[string]time.Duration) *Group {
	return &Group{name, codec.FeedKey(name), codec.OnlineKey(name), recordTTL, clientTTL}
}

// TTL returns the time to live of a record of the client after its last refresh; 0 means
// that it does not expire.
func (g *Group) TTL(client string) time.Duration {
	if ttl, ok := g.clientTTL[client]; ok {
		return ttl
	}
	return g.recordTTL
}
