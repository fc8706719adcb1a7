package subscriberdb

import (
	"bufio"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/audit"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redistest"
	"github.com/sessiond/sessiond/internal/testenv"
)

// victimOf names the environment variable with the Redis, and the seed, of a process that
// carries out orders until it is killed.
const victimOf = "SESSIOND_TEST_ORDERS_OF"

// TestVictimOfKills is the process that TestKilledWithinOrders kills.
func TestVictimOfKills(t *testing.T) {
	url, seed, ok := strings.Cut(os.Getenv(victimOf), " ")
	if !ok {
		return
	}
	n, err := strconv.ParseUint(seed, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	db, r := newDB(t, redistest.Dial(t, url)), rand.New(rand.NewPCG(n, 3))
	for first := true; ; first = false {
		if err := randomOrder(t, db, r); err != nil {
			t.Fatal(err)
		}
		if first {
			fmt.Println("\nvictim works")
		}
	}
}

// randomOrder carries out one order of any kind.
func randomOrder(t *testing.T, db *DB, r *rand.Rand) error {
	address := func() netip.Addr { return netip.AddrFrom4([4]byte{100, 64, 0, byte(r.IntN(200))}) }
	switch r.IntN(6) {
	case 0:
		var keys []subscriber.Key
		for range 1 + r.IntN(150) {
			keys = append(keys, key(address()))
		}
		slices.SortFunc(keys, func(a, b subscriber.Key) int { return a.Inside.Compare(b.Inside) })
		_, err := db.Delete(ordered(t, "DeleteSubscribers", ""), slices.Compact(keys), subscriber.ReasonAdmin, nil)
		return err
	case 1:
		return db.SetSettings(ordered(t, "UpdateSettings", ""), map[string]string{"idle_timeouts.udp": fmt.Sprint(r.Uint64())})
	case 2:
		m := nat.Mapping{Kind: nat.MappingStatic, Owner: nat.Owner{UserName: fmt.Sprint(r.Uint64())}, InsidePort: 22, CreatedAt: t0}
		m.Outside = nat.Endpoint{Protocol: 6, AddrPort: netip.AddrPortFrom(netip.MustParseAddr("198.51.100.1"), uint16(60000+r.IntN(50)))}
		return db.SaveMappings(ordered(t, "CreateMapping", ""), "default", []nat.Mapping{m}, nil)
	case 3:
		change := PoolChange{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(r.IntN(200))}), 32), Kind: PoolAdded, At: t0}
		return db.SavePoolChanges(ordered(t, "AddPool", ""), "default", []PoolChange{change}[:r.IntN(2)])
	}
	_, err := db.Put(ordered(t, "PutSubscriber", ""), subscriber.Record{Key: key(address()), UserName: fmt.Sprint("u", r.IntN(3))})
	return err
}

// TestKilledWithinOrders kills, again and again, a process that carries out orders, with
// SIGKILL at any moment: afterwards the changes in Redis are those that the audit trail has,
// and each has one entry. KILLS is the number of kills.
func TestKilledWithinOrders(t *testing.T) {
	kills := 30
	if text := os.Getenv("KILLS"); text != "" {
		var err error
		if kills, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	url := testenv.StartRedis(t).URL
	db := newDB(t, redistest.Dial(t, url), func(o *Options) { o.FeedLength = 1_000_000 }) // the feed is read from its beginning
	r := rand.New(rand.NewPCG(1, 2))
	for i := range kills {
		victim := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestVictimOfKills$", "-test.v")
		victim.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d", victimOf, url, i))
		out, err := victim.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := victim.Start(); err != nil {
			t.Fatal(err)
		}
		works := false
		for lines := bufio.NewScanner(out); !works && lines.Scan(); {
			works = lines.Text() == "victim works"
		}
		timer := time.NewTimer(time.Duration(r.IntN(30_000)) * time.Microsecond)
		<-timer.C
		killed := victim.Process.Kill()
		if err := victim.Wait(); !works || killed != nil || victim.ProcessState.Exited() {
			t.Fatalf("kill %d: the process did not work until it was killed: %v, %v", i, killed, err)
		}
	}
	checkOrders(t, db)
}

// checkOrders compares all changes in Redis with the entries.
func checkOrders(t *testing.T, db *DB) {
	t.Helper()
	puts, deletes, mappings, pools := map[string]int{}, map[string]int{}, map[string]string{}, ""
	entries := entriesOf(t, db, "default")
	for i := range entries {
		e := &entries[i]
		switch e.Method {
		case "PutSubscriber":
			puts[e.Keys[0]]++
		case "DeleteSubscribers":
			for _, k := range e.Keys {
				deletes[k]++
			}
		case "CreateMapping":
			mappings[e.Keys[0]] = e.New
		case "AddPool":
			pools = e.New
		}
	}
	for _, c := range changes(t, db, "default") {
		inside := c.Record.Inside.String()
		switch {
		case c.Kind != subscriber.Deleted:
			puts[inside]--
		case c.Reason == subscriber.ReasonAdmin:
			deletes[inside]--
		}
	}
	for what, counts := range map[string]map[string]int{"put": puts, "deleted": deletes} {
		for inside, n := range counts {
			if n != 0 {
				t.Errorf("%s: %s %d times more by the audit trail than in the feed", inside, what, n)
			}
		}
	}
	ctx := t.Context()
	if has := db.client.HGetAll(ctx, codec.MappingsKey("default")).Val(); !maps.Equal(has, mappings) {
		t.Errorf("mappings %v, by the audit trail %v", has, mappings)
	}
	if has := db.client.Get(ctx, codec.PoolsKey("default")).Val(); has != pools {
		t.Errorf("pools %q, by the audit trail %q", has, pools)
	}
	settings := entriesOf(t, db, audit.DaemonTrail)
	if has := db.client.HGet(ctx, codec.SettingsKey, "idle_timeouts.udp").Val(); "idle_timeouts.udp="+has != settings[len(settings)-1].New {
		t.Errorf("setting %q, by the audit trail %q", has, settings[len(settings)-1].New)
	}
	for i := 1; i < len(settings); i++ {
		if settings[i].Old != settings[i-1].New {
			t.Errorf("entry %d replaced %q by its own words, entry %d wrote %q", i+1, settings[i].Old, i, settings[i-1].New)
		}
	}
	if kept := db.client.SMembers(ctx, codec.TrailsKey).Val(); !slices.Contains(kept, "default") || !slices.Contains(kept, audit.DaemonTrail) {
		t.Errorf("names of trails %q", kept)
	}
	t.Logf("%d entries of the group, %d of the daemons", len(entries), len(settings))
}
