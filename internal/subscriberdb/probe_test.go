package subscriberdb

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/clock"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redistest"
	"github.com/sessiond/sessiond/internal/testenv"
)

// soon is the longest time for which a probe may be wrong about a server, including the
// slowness of the machine.
const soon = 2 * time.Second

// probing probes until the result is the wanted one: an error that contains the text, or no
// error for "".
func probing(t *testing.T, db *DB, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	for {
		err := db.Probe(ctx)
		if ctx.Err() != nil {
			t.Fatalf("after %v the probe says %v, want %q", soon, err, want)
		}
		if want == "" && err == nil || want != "" && err != nil && strings.Contains(err.Error(), want) {
			return
		}
		_ = clock.Sleep(ctx, 50*time.Millisecond)
	}
}

// TestProbe_ACCT10: probes and accounting fail on a server that refuses writes, and succeed
// on one that does not.
func TestProbe_ACCT10(t *testing.T) {
	type scene struct {
		server *testenv.RedisServer
		admin  redis.UniversalClient // of another user
	}
	config := func(t *testing.T, s scene, name, value string) {
		t.Helper()
		if err := s.admin.ConfigSet(t.Context(), name, value).Err(); err != nil {
			t.Fatal(err)
		}
	}
	user := func(t *testing.T, s scene, rules ...string) {
		t.Helper()
		args := []any{"ACL", "SETUSER", "default"}
		for _, r := range rules {
			args = append(args, r)
		}
		if err := s.admin.Do(t.Context(), args...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	dump := func(s scene) string { return filepath.Join(s.server.Dir, "dump.rdb") }
	for name, tt := range map[string]struct {
		want        string
		refuse, end func(t *testing.T, s scene)
	}{
		"full": {"OOM",
			func(t *testing.T, s scene) { config(t, s, "maxmemory", "1") },
			func(t *testing.T, s scene) { config(t, s, "maxmemory", "0") }},
		"made a replica": {"READONLY",
			func(t *testing.T, s scene) { s.admin.SlaveOf(t.Context(), "127.0.0.1", "1") },
			func(t *testing.T, s scene) { s.admin.SlaveOf(t.Context(), "NO", "ONE") }},
		"cannot store": {"MISCONF",
			func(t *testing.T, s scene) {
				if err := os.Mkdir(dump(s), 0o700); err != nil {
					t.Fatal(err)
				}
				config(t, s, "save", "3600 1")
				s.admin.BgSave(t.Context())
			},
			func(t *testing.T, s scene) {
				if err := os.Remove(dump(s)); err != nil {
					t.Fatal(err)
				}
				s.admin.BgSave(t.Context())
			}},
		"too few replicas": {"NOREPLICAS",
			func(t *testing.T, s scene) { config(t, s, "min-replicas-to-write", "1") },
			func(t *testing.T, s scene) { config(t, s, "min-replicas-to-write", "0") }},
		"key forbidden": {"NOPERM",
			func(t *testing.T, s scene) { user(t, s, "resetkeys", "~sessiond:*:sub:*") },
			func(t *testing.T, s scene) { user(t, s, "allkeys") }},
		"scripts forbidden": {"NOPERM",
			func(t *testing.T, s scene) { user(t, s, "-evalsha") },
			func(t *testing.T, s scene) { user(t, s, "+@all") }},
		"hangs": {"no answer within 1s",
			func(t *testing.T, s scene) { s.server.Hang(t) },
			func(t *testing.T, s scene) { s.server.Resume(t) }},
		"dead": {"connect",
			func(_ *testing.T, s scene) { s.server.Kill() },
			func(t *testing.T, s scene) { s.server.Start(t) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := scene{server: testenv.StartRedis(t, "--user", "admin", "on", "nopass", "+@all", "~*", "&*", "--user", "default", "on", "nopass", "+@all", "~*", "&*")}
			s.admin = redis.NewClient(&redis.Options{Network: "unix", Addr: s.server.Socket, Username: "admin", Password: "any"})
			t.Cleanup(func() { _ = s.admin.Close() })
			db := newDB(t, redistest.Dial(t, s.server.URL))
			record(t, db, start("a", addr, 0))
			probing(t, db, "")
			tt.refuse(t, s)
			probing(t, db, tt.want)
			ctx, cancel := context.WithTimeout(t.Context(), soon)
			defer cancel()
			if err := db.Record(ctx, []subscriber.Event{start("b", next, 0)})[0]; err == nil {
				t.Error("accounting was taken")
			}
			tt.end(t, s)
			probing(t, db, "")
			record(t, db, start("b", next, 0))
		})
	}
}

// TestProbeLeavesNothing: a probe writes one key for each group, which expires, and no feed
// entry.
func TestProbeLeavesNothing(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client, func(o *Options) { o.Node = "cgn 1" })
		probing(t, db, "")
		keys := db.client.Keys(t.Context(), "*").Val()
		if len(keys) != 3 {
			t.Errorf("keys %q, want one for each of two groups and the reserved one", keys)
		}
		for _, group := range []string{"default", "other", codec.Reserved} {
			if ttl := db.client.PTTL(t.Context(), "sessiond:{"+group+"}:probe:cgn%201").Val(); ttl <= 0 || ttl > probeTTL {
				t.Errorf("group %s: the probe's key lives for %v", group, ttl)
			}
		}
	})
}

// failover is a master and its replica behind one address.
type failover struct {
	old, new *testenv.RedisServer
	relay    *testenv.Relay
	oldCLI   redis.UniversalClient
	newCLI   redis.UniversalClient
	oldPort  string
	newPort  string
}

func startFailover(t *testing.T) *failover {
	t.Helper()
	f := &failover{oldPort: port(t), newPort: port(t)}
	f.old = testenv.StartRedis(t, "--port", f.oldPort, "--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0")
	f.new = testenv.StartRedis(t, "--port", f.newPort, "--bind", "127.0.0.1", "--replicaof", "127.0.0.1 "+f.oldPort)
	f.oldCLI, f.newCLI = redistest.Dial(t, f.old.URL), redistest.Dial(t, f.new.URL)
	f.relay = testenv.StartRelay(t, f.old.Socket)
	testenv.Eventually(t, "replication", func() bool {
		return strings.Contains(f.newCLI.Info(t.Context(), "replication").Val(), "master_link_status:up")
	})
	return f
}

func port(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, p, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// promote makes the replica the master, and the master its replica.
func (f *failover) promote(t *testing.T) {
	t.Helper()
	testenv.Eventually(t, "the replica has it all", func() bool {
		return f.newCLI.DBSize(t.Context()).Val() == f.oldCLI.DBSize(t.Context()).Val()
	})
	if err := f.newCLI.SlaveOf(t.Context(), "NO", "ONE").Err(); err != nil {
		t.Fatal(err)
	}
	if err := f.oldCLI.SlaveOf(t.Context(), "127.0.0.1", f.newPort).Err(); err != nil {
		t.Fatal(err)
	}
}

// TestFailoverBehindOneAddress_ACCT10: after a failover connections still lead to the old
// master, which answers READONLY, or hangs. They are redialled, those that wait for
// notifications too.
func TestFailoverBehindOneAddress_ACCT10(t *testing.T) {
	for name, tt := range map[string]struct {
		url  string // before the relay's port
		hang bool
		want string
	}{
		"demoted":          {"redis://127.0.0.1:", false, "READONLY"},
		"demoted, by name": {"redis://localhost:", false, "READONLY"},
		"hangs":            {"redis://127.0.0.1:", true, "no answer"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := startFailover(t)
			_, relayPort, _ := net.SplitHostPort(f.relay.Addr)
			db := newDB(t, redistest.Dial(t, tt.url+relayPort))
			setMarker(t, db, "default")
			undertaker(t, db)
			var idle sync.WaitGroup // several connections
			for range 8 {
				idle.Go(func() { db.client.BLPop(t.Context(), 100*time.Millisecond, "none") })
			}
			idle.Wait()
			record(t, db, start("a", addr, 0), start("b", next, 0))
			probing(t, db, "")
			f.promote(t)
			if tt.hang {
				f.old.Hang(t)
			}
			probing(t, db, tt.want)
			f.relay.Lead(f.new.Socket)
			probing(t, db, "")
			for i, err := range db.Record(t.Context(), many(200)) {
				if err != nil {
					t.Fatalf("event %d: %v", i, err)
				}
			}
			if n := f.newCLI.HLen(t.Context(), codec.OnlineKey("default")).Val(); n < 200 {
				t.Errorf("%d records at the new master", n)
			}
			testenv.Eventually(t, "subscribed to the new master", func() bool {
				return len(f.newCLI.PubSubChannels(t.Context(), "__keyevent*").Val()) > 0
			})
			testenv.Eventually(t, "the new master's notifications on", func() bool {
				return notifies(t, f.newCLI)
			})
			before := len(changes(t, db, "default"))
			f.newCLI.Del(t.Context(), codec.RecordKey("default", addr))
			testenv.Eventually(t, "a removal at the new master announced", func() bool { return len(changes(t, db, "default")) > before })
		})
	}
}

// TestReplicaIsTaughtOnce: scripts are loaded into a replica once, and not with each event
// that it refuses.
func TestReplicaIsTaughtOnce(t *testing.T) {
	f := startFailover(t)
	db := newDB(t, redistest.Dial(t, f.new.URL+"?max_retries=-1"))
	for range 20 {
		if err := db.Record(t.Context(), []subscriber.Event{start("a", addr, 0)})[0]; err == nil {
			t.Fatal("a replica took accounting")
		}
		if err := db.Probe(t.Context()); err == nil || !strings.Contains(err.Error(), "READONLY") {
			t.Fatalf("the probe says %v", err)
		}
	}
	stats := f.newCLI.Info(t.Context(), "commandstats").Val()
	if !strings.Contains(stats, fmt.Sprintf("cmdstat_script|load:calls=%d,", len(scripts()))) {
		t.Errorf("not each script was loaded once:\n%s", stats)
	}
}

// TestCommitsTellOfTrouble: a failed commit requests a probe, and has the connection
// redialled if it may lead elsewhere.
func TestCommitsTellOfTrouble(t *testing.T) {
	server := testenv.StartRedis(t)
	db := newDB(t, redistest.Dial(t, server.URL+"?max_retries=-1"))
	record(t, db, start("a", addr, 0))
	select {
	case <-db.Trouble():
		t.Fatal("trouble without a failure")
	default:
	}
	db.client.SlaveOf(t.Context(), "127.0.0.1", "1")
	for range 10 {
		if db.Record(t.Context(), []subscriber.Event{interim("a", addr, time.Minute)})[0] == nil {
			t.Fatal("a replica took accounting")
		}
	}
	select {
	case <-db.Trouble():
	default:
		t.Error("no trouble")
	}
	if !db.client.Failing() {
		t.Error("connections are not given up")
	}
}

const notifySetting = "notify-keyspace-events"

// notifies reports whether a server notifies about keys that are deleted, expire or are
// evicted.
func notifies(t *testing.T, server redis.UniversalClient) bool {
	t.Helper()
	flags := server.ConfigGet(t.Context(), notifySetting).Val()[notifySetting]
	all := strings.Contains(flags, "A")
	for _, f := range []string{"g", "x", "e"} {
		if !all && !strings.Contains(flags, f) {
			return false
		}
	}
	return strings.Contains(flags, "E")
}

// TestNotificationsCleared_DEL09: another program clears the setting. It is set again,
// records removed meanwhile are found, and the log has one line.
func TestNotificationsCleared_DEL09(t *testing.T) {
	client := redistest.Start(t)
	var log lines
	db := newDB(t, client, func(o *Options) { o.Logger = log.logger() })
	setMarker(t, db, "default")
	record(t, db, start("a", addr, 0))
	undertaker(t, db)
	on := func() bool { return notifies(t, client) }
	testenv.Eventually(t, "notifications on", on)
	for range 2 {
		if err := db.client.ConfigSet(t.Context(), notifySetting, "").Err(); err != nil {
			t.Fatal(err)
		}
		db.client.Del(t.Context(), codec.RecordKey("default", addr))
		testenv.Eventually(t, "notifications on again", on)
	}
	testenv.Eventually(t, "the removal found", func() bool { return len(changes(t, db, "default")) == 2 })
	if !db.Notified() {
		t.Error("the alarm sounds")
	}
	if n := len(log.with("notifications of removed records were turned off")); n != 1 {
		t.Errorf("said %d times", n)
	}
}

// TestNotificationsForbidden_DEL09: if sessiond may read the setting and not change it, an
// alarm is logged, and removed records are found by scans.
func TestNotificationsForbidden_DEL09(t *testing.T) {
	client := redistest.Start(t)
	var log lines
	db := newDB(t, client, func(o *Options) { o.Logger = log.logger() })
	setMarker(t, db, "default")
	record(t, db, start("a", addr, 0), start("b", next, 0))
	undertaker(t, db)
	testenv.Eventually(t, "notifications on", func() bool {
		return db.client.ConfigGet(t.Context(), notifySetting).Val()[notifySetting] != ""
	})
	admin := redis.NewClient(&redis.Options{Network: "unix", Addr: db.client.UniversalClient.(*redis.Client).Options().Addr, Username: "admin", Password: "any"})
	t.Cleanup(func() { _ = admin.Close() })
	for _, args := range [][]any{{"ACL", "SETUSER", "admin", "on", "nopass", "+@all", "~*", "&*"}, {"ACL", "SETUSER", "default", "-config|set"}} {
		if err := db.client.Do(t.Context(), args...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if !db.Notified() {
		t.Error("the alarm sounds already")
	}
	if err := admin.ConfigSet(t.Context(), notifySetting, "").Err(); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "the alarm", func() bool { return !db.Notified() })
	db.client.Del(t.Context(), codec.RecordKey("default", addr))
	testenv.Eventually(t, "the removal found", func() bool { return len(changes(t, db, "default")) == 3 })
	if err := admin.ConfigSet(t.Context(), notifySetting, "Egxe").Err(); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "the all-clear", db.Notified)
	if said, again := len(log.with("redis does not let us")), len(log.with("redis tells of removed records again")); said != 1 || again != 1 {
		t.Errorf("said %d times that it is off and %d times that it is on again", said, again)
	}
}

// TestOutageIsToldByOthers: while Redis is down, only the prober reports that, not the
// tasks that need Redis. A connection that is lost for another reason is logged.
func TestOutageIsToldByOthers(t *testing.T) {
	server := testenv.StartRedis(t)
	var log lines
	db := newDB(t, redistest.Dial(t, server.URL), func(o *Options) { o.Logger = log.logger() })
	subscribed := func() bool { return len(db.client.PubSubChannels(t.Context(), "__keyevent*").Val()) > 0 }
	undertaker(t, db)
	task(t, sweeper(db))
	testenv.Eventually(t, "subscribed", subscribed)
	server.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), 2*sweepPause+time.Second)
	defer cancel()
	<-ctx.Done() // time for several tries
	server.Start(t)
	probing(t, db, "")
	testenv.Eventually(t, "subscribed again", subscribed)
	complaints := func() (messages []string) {
		log.mu.Lock()
		defer log.mu.Unlock()
		for _, r := range log.kept {
			if r.Level >= slog.LevelWarn {
				messages = append(messages, r.Message)
			}
		}
		return messages
	}
	if got := complaints(); len(got) > 0 {
		t.Errorf("the log complains %q", got)
	}
	if err := db.client.Do(t.Context(), "CLIENT", "KILL", "TYPE", "pubsub").Err(); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "subscribed once more", subscribed)
	testenv.Eventually(t, "told", func() bool { return len(complaints()) == 1 })
}
