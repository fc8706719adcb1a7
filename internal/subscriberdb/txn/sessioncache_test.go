package txn

import (
	"net/netip"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
)

// TestCachedSession: the state from the cache is exactly that of the state line, also if an
// earlier session had the same identifier.
func TestCachedSession(t *testing.T) {
	t0 := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	id := subscriber.SessionID{Client: "bng1", NAS: "nas1", AcctSessionID: "a"}
	inside := netip.MustParseAddr("100.64.0.1")
	for name, state := range map[string]subscriber.SessionState{
		"stamped":     {Exact: true, Stamp: t0.Add(time.Second)},
		"digested":    {Exact: true, Digest: 7},
		"found":       {},
		"used before": {Exact: true, Before: t0.Add(-time.Hour)},
		"other user":  {Exact: true, UserName: "bob"},
	} {
		r := subscriber.Record{Key: subscriber.Key{Group: "default", Inside: inside}, SessionID: id, UserName: "alice", StartedAt: t0, Version: "5-0"}
		state.Phase, state.Inside, state.Start = subscriber.Open, inside, t0
		if state.UserName == "" {
			state.UserName = r.UserName
		}
		c, key := newCache(8), cacheKey{"default", id}
		c.put(key, newCachedSession(&r, &state))
		var again subscriber.Record
		kept := c.get(key, &again)
		if kept == nil {
			t.Fatalf("%s: not in the cache", name)
		}
		if got := kept.state(&again); got != state || codec.FormatState(&got) != codec.FormatState(&state) {
			t.Errorf("%s: in the cache %q, in the database %q", name, codec.FormatState(&got), codec.FormatState(&state))
		}
		state.Phase = subscriber.Closed
		c.put(key, newCachedSession(&r, &state))
		if c.get(key, &again) != nil {
			t.Errorf("%s: a session that ended is in the cache", name)
		}
	}
}
