package subscriberdb

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/audit"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
	"github.com/sessiond/sessiond/internal/subscriberdb/redistest"
	"github.com/sessiond/sessiond/internal/testenv"
)

// TestCluster runs the whole store against a Redis Cluster of one node, which refuses
// commands with keys of two slots too.
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
	if err := client.Del(t.Context(), codec.RecordKey("default", victim)).Err(); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "removal announced", func() bool { return len(changes(t, db, "default")) == 23 })

	record(t, db, event(subscriber.EventAccountingOn, "", noAddr, time.Minute))
	task(t, sweeper(db))
	testenv.Eventually(t, "swept", func() bool { return client.SCard(t.Context(), codec.RestartsKey("default")).Val() == 0 })
	compareOnline(t, db, map[netip.Addr]string{})
	err := errors.Join(
		db.SaveBindings(t.Context(), "default", []nat.Binding{{Blocks: nat.Blocks{Block: nat.Block{Outside: away, First: 1024}}, Holder: nat.Holder{Inside: addr}}}, []nat.Place{{Outside: away, First: 2048}}),
		db.InitSettings(t.Context(), map[string]string{"a": "1"}),
		db.Restore(t.Context(), []subscriber.Record{{Key: key(addr), UserName: "alice"}}),
	)
	if err != nil {
		t.Error(err)
	}
	if gone, err := db.Gone(t.Context(), "default", []netip.Addr{addr, next}); err != nil || len(gone) != 1 {
		t.Errorf("gone: %v, %v", gone, err)
	}
	client.HSet(t.Context(), codec.OldBindingsKey("other"), "198.51.100.1:1024", "{}", "198.51.100.2:1024", "{}")
	moved := db.SaveBindings(t.Context(), "other", []nat.Binding{{Blocks: nat.Blocks{Block: nat.Block{Outside: away, First: 1024}}, Holder: nat.Holder{Inside: away}}, {Blocks: nat.Blocks{Block: nat.Block{Outside: addr, First: 2048}}, Holder: nat.Holder{Inside: away}}}, nil)
	blocks := []nat.Place{{Outside: netip.MustParseAddr("198.51.100.1"), First: 1024}, {Outside: away, First: 1024}, {Outside: away, First: 2048}}
	if rows, err := db.BindingRowsAt(t.Context(), "other", blocks); moved != nil || err != nil || !rows[0].Stored() || !rows[1].Stored() || rows[2].Stored() {
		t.Errorf("rows %+v, %v, %v", rows, moved, err)
	}
	if ok, err := db.SetOwner(t.Context(), "default", "", "me", time.Minute); err != nil || !ok {
		t.Errorf("lease: %v, %v", ok, err)
	}
	err = errors.Join(
		db.SaveServed(t.Context(), Served{Group: "default"}), db.SaveServed(t.Context(), Served{Group: "other"}), db.ForgetServed(t.Context(), "other"),
	)
	if all, errServed := db.Served(t.Context(), nil); err != nil || errServed != nil || len(all) != 1 {
		t.Errorf("served: %+v, %v, %v", all, err, errServed)
	}
	if _, err := db.Delete(t.Context(), []subscriber.Key{key(addr), key(away)}, subscriber.ReasonAdmin, nil); err != nil {
		t.Error(err)
	}
}

// TestProbeEveryMaster_ACCT10: a probe fails if one master of a Cluster takes no writes,
// because accounting of its groups cannot be recorded.
func TestProbeEveryMaster_ACCT10(t *testing.T) {
	client, shards, groups := startShards(t)
	db := newDB(t, client, func(o *Options) { o.Groups = groups })
	probing(t, db, "")
	for _, s := range shards {
		s.node.ConfigSet(t.Context(), "maxmemory", "1")
		probing(t, db, "OOM")
		s.node.ConfigSet(t.Context(), "maxmemory", "0")
		probing(t, db, "")
	}
}

// TestTrailsWithoutAShard: while a master of a Cluster is away the trails of the other one can be
// read, and an error names the others.
func TestTrailsWithoutAShard(t *testing.T) {
	client, shards, groups := startShards(t)
	db := newDB(t, client, func(o *Options) { o.Groups = groups })
	trails := append([]string{audit.DaemonTrail}, groups[0].Name, groups[1].Name)
	for _, g := range groups {
		if err := db.SavePoolChanges(ordered(t, "AddPool", ""), g.Name, []PoolChange{{Prefix: netip.MustParsePrefix("203.0.113.0/28"), Kind: PoolAdded, At: t0}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.SetSettings(ordered(t, "UpdateSettings", ""), map[string]string{"idle_timeouts.udp": "1s"}); err != nil {
		t.Fatal(err)
	}
	away := 1
	slot, err := shards[0].node.ClusterKeySlot(t.Context(), codec.TrailsKey).Result()
	if err != nil {
		t.Fatal(err)
	}
	if slot > 8191 {
		away = 0 // that of the settings stays
	}
	shards[1-away].node.ConfigSet(t.Context(), "cluster-require-full-coverage", "no")
	shards[away].server.Kill()
	if names, err := db.Audit().Trails(t.Context()); err != nil || !slices.Equal(names, trails) {
		t.Errorf("trails %q, %v, want %q", names, err, trails)
	}
	for _, trail := range trails {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		v, err := db.Audit().Verify(ctx, trail)
		cancel()
		if trail == groups[away].Name {
			if err == nil || !strings.Contains(err.Error(), codec.AuditKey(trail)) {
				t.Errorf("trail %s of a master that is away: %+v, %v", trail, v, err)
			}
		} else if err != nil || v.Flaw != nil || v.Entries != 1 {
			t.Errorf("trail %s: %+v, %v", trail, v, err)
		}
	}
}

// clusterShard is one master of a Cluster.
type clusterShard struct {
	server *testenv.RedisServer
	node   redis.UniversalClient
}

// startShards starts a Cluster of two masters, with half of the slots each, and returns a group
// for each of them.
func startShards(t *testing.T) (redis.UniversalClient, [2]clusterShard, []Group) {
	t.Helper()
	var shards [2]clusterShard
	var nodes [2]redis.UniversalClient
	var ports [2]string
	slots := [2][2]int{{0, 8191}, {8192, 16383}}
	for i := range nodes {
		ports[i] = strconv.Itoa(freePort(t))
		server := testenv.StartRedis(t, "--port", ports[i], "--bind", "127.0.0.1", "--cluster-enabled", "yes",
			"--cluster-config-file", "nodes-"+ports[i]+".conf")
		nodes[i] = redistest.Dial(t, server.URL)
		shards[i] = clusterShard{server, nodes[i]}
		if err := nodes[i].Do(t.Context(), "CLUSTER", "ADDSLOTSRANGE", slots[i][0], slots[i][1]).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join( // different epochs, or the nodes would have to agree on one first
		nodes[1].Do(t.Context(), "CLUSTER", "SET-CONFIG-EPOCH", 2).Err(),
		nodes[0].Do(t.Context(), "CLUSTER", "MEET", "127.0.0.1", ports[1]).Err(),
	); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "the cluster is whole", func() bool {
		for _, n := range nodes {
			info := n.Do(t.Context(), "CLUSTER", "INFO").String()
			if !strings.Contains(info, "cluster_state:ok") || !strings.Contains(info, "cluster_size:2") {
				return false
			}
		}
		return true
	})
	var groups []Group // one on each node
	for i := 0; len(groups) < len(nodes); i++ {
		name := "g" + strconv.Itoa(i)
		slot, err := nodes[0].ClusterKeySlot(t.Context(), "{"+name+"}").Result()
		if err != nil {
			t.Fatal(err)
		}
		if n := len(groups); slot >= int64(slots[n][0]) && slot <= int64(slots[n][1]) {
			groups = append(groups, Group{Name: name, RecordTTL: testTTL})
		}
	}
	client, err := redisconn.Dial([]string{"redis://127.0.0.1:" + ports[0]}, redisconn.ModeCluster, 2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client, shards, groups
}

func startCluster(t *testing.T) redis.UniversalClient {
	t.Helper()
	port := strconv.Itoa(freePort(t))
	server := testenv.StartRedis(t, "--port", port, "--bind", "127.0.0.1", "--cluster-enabled", "yes")
	node := redistest.Dial(t, server.URL)
	if err := node.Do(t.Context(), "CLUSTER", "ADDSLOTSRANGE", 0, 16383).Err(); err != nil {
		t.Fatal(err)
	}
	client, err := redisconn.Dial([]string{"redis://127.0.0.1:" + port}, redisconn.ModeCluster, 3)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	testenv.Eventually(t, "cluster is up", func() bool { return client.Set(t.Context(), "probe", "", time.Second).Err() == nil })
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
