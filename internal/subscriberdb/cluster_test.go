package subscriberdb

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/testenv"
)

// TestCluster runs the whole store against a Redis Cluster (of one node, which
// refuses what touches two slots all the same).
func TestCluster(t *testing.T) {
	client := startCluster(t)
	db := newDB(t, client)
	setMarker(t, db, "default")
	record(t, db, append(many(20), start("a", addr, 0), start("b", away, 0), interim("a", away, time.Hour))...)
	checkStory(t, db, "other", []string{
		"created 100.70.0.1 b", "deleted 100.70.0.1 b SUPERSEDED", "created 100.70.0.1 a",
	})
	if entry, _, err := db.Unread(t.Context(), "other", beginning); entry == "" || err != nil {
		t.Errorf("nothing of the feed is unread, %v", err)
	}
	undertaker(t, db)
	victim := netip.MustParseAddr("100.64.1.0")
	if err := client.Del(t.Context(), recordKey("default", victim)).Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "removal announced", func() bool { return len(changes(t, db, "default")) == 23 })

	record(t, db, event(subscriber.EventAccountingOn, "", noAddr, time.Minute))
	task(t, db.SweepRestarts)
	eventually(t, "swept", func() bool { return client.SCard(t.Context(), restartsKey("default")).Val() == 0 })
	compareOnline(t, db, map[netip.Addr]string{})
	err := errors.Join(
		db.SaveBindings(t.Context(), "default", []Binding{{Inside: addr, Outside: away, First: 1024}}, []Block{{away, 2048}}),
		db.InitSettings(t.Context(), map[string]string{"a": "1"}),
		db.Restore(t.Context(), []subscriber.Record{{Key: key(addr), UserName: "alice"}}),
	)
	if err != nil {
		t.Error(err)
	}
	if _, err := db.Delete(t.Context(), []subscriber.Key{key(addr), key(away)}, subscriber.ReasonAdmin); err != nil {
		t.Error(err)
	}
}

func startCluster(t *testing.T) redis.UniversalClient {
	t.Helper()
	port := strconv.Itoa(freePort(t))
	server := testenv.StartRedis(t, "--port", port, "--bind", "127.0.0.1", "--cluster-enabled", "yes")
	node := dialTest(t, server.URL)
	if err := node.Do(t.Context(), "CLUSTER", "ADDSLOTSRANGE", 0, 16383).Err(); err != nil {
		t.Fatal(err)
	}
	client, err := Dial([]string{"redis://127.0.0.1:" + port}, ModeCluster, 3)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	eventually(t, "cluster is up", func() bool { return client.Set(t.Context(), "probe", "", time.Second).Err() == nil })
	return client
}

// freePort finds a port whose cluster bus port, 10000 above, exists too.
func freePort(t *testing.T) int {
	t.Helper()
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		_ = l.Close()
		if port < 55000 {
			return port
		}
	}
}
