package subscriberdb

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/guard"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriberdb/redistest"
)

func servedExample() Served {
	return Served{
		Group: "default", By: "cgn1 :sessiond",
		Inside: []netip.Prefix{netip.MustParsePrefix("100.64.0.0/16")}, Outside: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/28")},
		Draining:  []netip.Prefix{netip.MustParsePrefix("198.51.100.0/28")},
		FirstPort: 1024, LastPort: 65535, BlockSize: 512, Hold: 2 * time.Minute, Grace: time.Second, GraceCauses: []uint32{2, 3}, MaxBlocks: 4,
		Terms: Terms{
			Limits: nat.Limits{Sessions: 1, NewSessionsPerSecond: 2, TCPPorts: 3, UDPPorts: 4, Reserve: 5}, Learned: nat.Learned{EndpointIndependent: true, Strict: true},
			Timeouts: nat.GroupTimeouts{
				Own:   nat.Timeouts{TCPEstablished: time.Hour, TCPTransitory: time.Minute, TCPPartialOpen: 2 * time.Second, TCPPartialClose: 3 * time.Second, UDP: time.Second, ICMP: 4 * time.Second},
				Ports: []nat.PortTimeout{{Protocol: 17, Port: 53, Timeout: time.Second}},
			},
			NoNAT: []nat.NoNAT{{Remote: netip.MustParsePrefix("192.0.2.0/24"), Protocol: 6, First: 80, Last: 443}},
		},
		RecordTTL: testTTL,
		Guard:     guard.Limits{Minimum: 100, Removed: 0.1, Expired: 0.2, NASRestart: 1, Window: 15 * time.Minute},
	}
}

// TestServed_I7: the configuration of a group is stored unchanged, in a readable form, and
// is found without the group's name; an interrupted write is no error.
func TestServed_I7(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		want := servedExample()
		db := newDB(t, client, func(o *Options) { o.Groups[0].Guard = want.Guard })
		given := want
		given.RecordTTL, given.Guard = 0, guard.Limits{} // the store knows them itself
		if err := db.SaveServed(t.Context(), given); err != nil {
			t.Fatal(err)
		}
		text, err := client.Get(t.Context(), "sessiond:{default}:served").Result()
		if err != nil || !strings.Contains(text, `"hold":"2m0s"`) || !strings.Contains(text, `"draining":["198.51.100.0/28"]`) {
			t.Errorf("stored as %s, %v", text, err)
		}
		if err := client.SAdd(t.Context(), "sessiond:groups", "begun").Err(); err != nil {
			t.Fatal(err)
		}
		stranger := newDB(t, client, func(o *Options) { o.Groups = nil })
		if all, err := stranger.Served(t.Context(), nil); err != nil || !reflect.DeepEqual(all, []Served{want}) {
			t.Errorf("found %+v, %v, want %+v", all, err, want)
		}
		if err := client.Del(t.Context(), "sessiond:groups").Err(); err != nil {
			t.Fatal(err)
		}
		if all, err := stranger.Served(t.Context(), []string{"default", "default"}); err != nil || len(all) != 1 {
			t.Errorf("by its name: %+v, %v", all, err)
		}
		if err := stranger.SaveServed(t.Context(), want); !errors.Is(err, ErrNoGroup) {
			t.Errorf("saved for a group that is not there: %v", err)
		}
		if err := db.ForgetServed(t.Context(), "default"); err != nil {
			t.Fatal(err)
		}
		if all, err := stranger.Served(t.Context(), []string{"default"}); err != nil || len(all) != 0 {
			t.Errorf("after it was forgotten: %+v, %v", all, err)
		}
		if err := client.Set(t.Context(), "sessiond:{default}:served", "{", 0).Err(); err != nil {
			t.Fatal(err)
		}
		if all, err := stranger.Served(t.Context(), []string{"default"}); err != nil || len(all) != 0 {
			t.Errorf("of a configured group what cannot be read: %+v, %v", all, err)
		}
		if err := client.SAdd(t.Context(), "sessiond:groups", "default").Err(); err != nil {
			t.Fatal(err)
		}
		if _, err := stranger.Served(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "configure it") {
			t.Errorf("of a group that is not configured what cannot be read: %v, want an error: its customers would be cut", err)
		}
	})
}

// TestServe: groups that drain are added to the configured ones, and removed again.
func TestServe(t *testing.T) {
	db := newDB(t, idleClient(t))
	ttl := map[string]time.Duration{"bng1": time.Hour}
	groups := testGroups()
	groups[0].ClientTTL, groups[1].ClientTTL = ttl, ttl
	if err := db.SetGroups(groups); err != nil {
		t.Fatal(err)
	}
	more := []Group{
		{Name: "default", Inside: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}},
		{Name: "east", Inside: []netip.Prefix{netip.MustParsePrefix("172.16.0.0/12")}, RecordTTL: time.Minute},
	}
	for range 2 { // a start retries after a failure
		if err := db.Serve(more); err != nil {
			t.Fatal(err)
		}
	}
	for a, want := range map[string]string{"100.64.0.1": "default", "10.0.0.1": "default", "100.70.0.1": "other", "172.16.0.1": "east", "192.0.2.1": ""} {
		if got, _ := db.GroupOf(netip.MustParseAddr(a)); got != want {
			t.Errorf("%s is in group %q, want %q", a, got, want)
		}
	}
	east, err := db.group("east")
	if err != nil || east.RecordTTL != time.Minute || east.txns.TTL("bng1") != time.Hour {
		t.Errorf("east: %+v, %v", east, err)
	}
	if g, _ := db.group("default"); g.RecordTTL != testTTL || len(g.Inside) != 2 {
		t.Errorf("default: %+v", g)
	}
	if err := db.Unserve("east"); err != nil {
		t.Fatal(err)
	}
	if got, ok := db.GroupOf(netip.MustParseAddr("172.16.0.1")); ok {
		t.Errorf("172.16.0.1 is in group %q", got)
	}
}

// idleClient returns a client that is never used.
func idleClient(t *testing.T) redis.UniversalClient {
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// TestOwner: a lease is changed only by a caller that has its present owner.
func TestOwner(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client)
		set := func(was, now string, want bool) {
			t.Helper()
			if ok, err := db.SetOwner(t.Context(), "default", was, now, time.Minute); err != nil || ok != want {
				t.Errorf("from %q to %q: %v, %v, want %v", was, now, ok, err, want)
			}
		}
		owner := func(want string) {
			t.Helper()
			line, left, err := db.Owner(t.Context(), "default")
			if err != nil || line != want || want != "" && (left <= 0 || left > time.Minute) {
				t.Errorf("owner %q for %v, %v, want %q", line, left, err, want)
			}
		}
		owner("")
		set("a", "b", false)
		set("", "a", true)
		owner("a")
		set("", "b", false)
		set("b", "b", false)
		set("a", "a", true)
		if err := client.ScriptFlush(context.Background()).Err(); err != nil {
			t.Fatal(err)
		}
		set("a", "b", true)
		owner("b")
		set("a", "", false)
		set("b", "", true)
		owner("")
	})
}

// TestPoolChanges_I7: changes of pools are stored and read back; none leave no key, and a
// value of others counts as none.
func TestPoolChanges_I7(t *testing.T) {
	found := 0
	client := redistest.Start(t)
	db, err := New(Options{Client: client, Groups: []Group{{Name: "default"}}, Garbage: func(string, Garbage) { found++ }})
	if err != nil {
		t.Fatal(err)
	}
	changes := []PoolChange{{Prefix: netip.MustParsePrefix("198.51.100.0/28"), Kind: PoolDraining, At: time.Unix(1_772_359_200, 0).UTC()}}
	check := func(want []PoolChange) {
		t.Helper()
		if got, err := db.PoolChanges(t.Context(), "default"); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("changes %v, %v; want %v", got, err, want)
		}
	}
	check(nil)
	if err := db.SavePoolChanges(t.Context(), "default", changes); err != nil {
		t.Fatal(err)
	}
	check(changes)
	if err := db.SavePoolChanges(t.Context(), "default", nil); err != nil {
		t.Fatal(err)
	}
	if n := client.Exists(t.Context(), "sessiond:{default}:pools").Val(); n != 0 {
		t.Error("no changes are stored under a key")
	}
	for _, write := range []func() error{
		func() error { return client.Set(t.Context(), "sessiond:{default}:pools", "garbage", 0).Err() },
		func() error { return client.Del(t.Context(), "sessiond:{default}:pools").Err() },
		func() error { return client.SAdd(t.Context(), "sessiond:{default}:pools", "garbage").Err() },
	} {
		if err := write(); err != nil {
			t.Fatal(err)
		}
		check(nil)
	}
	if found != 2 {
		t.Errorf("garbage is reported %d times, want 2", found)
	}
}
