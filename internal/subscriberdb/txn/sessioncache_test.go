package txn

import (
	"net/netip"
	"reflect"
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
		var p subscriber.Packer
		c, tx := newCache(8), &Txn{Group: NewGroup("default", time.Hour, nil), Session: id, Hash: HashOf(id)}
		c.put(tx, newCachedSession(&p, &r, &state))
		var again subscriber.Record
		kept := c.get(tx, &again)
		if kept == nil {
			t.Fatalf("%s: not in the cache", name)
		}
		if got := kept.state(&again); got != state || codec.FormatState(&got) != codec.FormatState(&state) {
			t.Errorf("%s: in the cache %q, in the database %q", name, codec.FormatState(&got), codec.FormatState(&state))
		}
		state.Phase = subscriber.Closed
		c.put(tx, newCachedSession(&p, &r, &state))
		if c.get(tx, &again) != nil {
			t.Errorf("%s: a session that ended is in the cache", name)
		}
	}
}

// TestRefreshedSession: a session that an Interim refreshed is in the cache as one that was
// written anew.
func TestRefreshedSession(t *testing.T) {
	t0 := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	id := subscriber.SessionID{Client: "bng1", NAS: "nas1", AcctSessionID: "a"}
	for _, inside := range []string{"100.64.0.1", "2001:db8::1"} {
		r := subscriber.Record{
			Key: subscriber.Key{Group: "default", Inside: netip.MustParseAddr(inside)}, SessionID: id, UserName: "alice",
			StartedAt: t0, UpdatedAt: t0, Version: "5-0",
		}
		state := subscriber.OpenState(&r)
		state.Exact = true
		var p subscriber.Packer
		before := newCachedSession(&p, &r, &state)
		r.UpdatedAt, r.ExpiresAt, r.Version = t0.Add(time.Minute), t0.Add(time.Hour), "6-1"
		r.InputOctets, r.OutputOctets = 7, 9
		got, want := before.refreshed(&p, &r), newCachedSession(&p, &r, &state)
		if g, w := got.record.Record(), want.record.Record(); !reflect.DeepEqual(g, w) {
			t.Errorf("%s: record %+v, want %+v", inside, g, w)
		}
		if g, w := got.state(&r), want.state(&r); g != w {
			t.Errorf("%s: state %+v, want %+v", inside, g, w)
		}
		if old := before.record.Record(); old.Version != "5-0" {
			t.Errorf("%s: the session before has changed to %+v", inside, old)
		}
	}
}
