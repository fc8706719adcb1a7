package subscriberdb

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redistest"
	"github.com/sessiond/sessiond/internal/subscriberdb/txn"
	"github.com/sessiond/sessiond/internal/testenv"
)

// Size of TestFastScriptsEndAlike.
const (
	alikeRounds      = 24
	alikeShortRounds = 4
	alikeCourses     = 80 // in one round
)

// TestFastScriptsEndAlike: the same random histories, once through the scripts for common
// events and once through the general one alone, have the same result: records and their
// times to live, session states, restarts, the hash of online addresses, and the changes in
// the feeds of each address. Each side has two daemons, so that guesses are wrong.
func TestFastScriptsEndAlike(t *testing.T) {
	fast, general := newSide(t, false), newSide(t, true)
	rounds := alikeRounds
	switch {
	case testing.Short():
		rounds = alikeShortRounds
	case !testenv.Soak():
		rounds /= 2
	}
	for round := range rounds {
		for _, s := range []*side{fast, general} {
			s.play(t, rand.New(rand.NewPCG(uint64(round), 17)))
		}
		compareSides(t, fast, general)
		if t.Failed() {
			t.Fatalf("round %d", round)
		}
	}
	commit, others := txn.Scripts()
	if n := general.calls(others...); n != 0 {
		t.Errorf("%d calls of the fast scripts on the side without them", n)
	}
	for i, script := range append(others, commit) {
		if fast.calls(script) == 0 {
			t.Errorf("no call of script %d on the side that has it", i)
		}
	}
}

// side is one of the two: its Redis, its daemons and their clock.
type side struct {
	client redis.UniversalClient
	dbs    [2]*DB
	now    time.Time
	sent   map[string]int // number of calls by script hash, and of commands by name
	alone  bool           // only the general script is used
}

func newSide(t *testing.T, general bool) *side {
	s := &side{client: redistest.Dial(t, testenv.StartRedis(t).URL), sent: make(map[string]int), alone: general}
	s.client.AddHook(commandCounter{s.sent})
	return s
}

// reset begins a round with an empty database and new daemons.
func (s *side) reset(t *testing.T) {
	t.Helper()
	if err := s.client.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	s.now = t0
	for i := range s.dbs {
		s.dbs[i] = newDB(t, s.client, func(o *Options) { o.Now = func() time.Time { return s.now } })
		if s.alone {
			s.dbs[i].txns.UseGeneralScript()
		}
	}
}

// play sends histories of many NASes to the daemons of a side, each event once or more and
// some late, and deletes some records by an operator. A batch has at most one event of each
// NAS, so that the result does not depend on the order within it.
func (s *side) play(t *testing.T, rng *rand.Rand) {
	t.Helper()
	s.reset(t)
	var queues [][]subscriber.Event
	online := map[netip.Addr]string{}
	for i := range alikeCourses {
		c := course{rng: rng, number: i, slot: i, online: online, now: t0}
		c.run(6 + rng.IntN(20))
		c.restart()
		c.run(rng.IntN(6))
		queues = append(queues, disordered(rng, c.events))
	}
	for left := len(queues); left > 0; {
		var batch []subscriber.Event
		for i := range queues {
			if len(queues[i]) == 0 || rng.IntN(4) == 0 {
				continue
			}
			batch = append(batch, queues[i][0])
			if queues[i] = queues[i][1:]; len(queues[i]) == 0 {
				left--
			}
		}
		s.now = s.now.Add(time.Second)
		db := s.dbs[rng.IntN(len(s.dbs))]
		record(t, db, batch...)
		switch rng.IntN(8) {
		case 0:
			if err := db.sweepAll(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
		case 1:
			var keys []subscriber.Key
			for range 1 + rng.IntN(20) {
				inside := crossing(rng.IntN(alikeCourses*perHistory), rng.IntN(perHistory))
				keys = append(keys, groupedKey(inside))
			}
			slices.SortFunc(keys, func(a, b subscriber.Key) int { return a.Inside.Compare(b.Inside) })
			if _, err := db.Delete(t.Context(), slices.Compact(keys), subscriber.ReasonAdmin, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// crossing returns the i-th address of a history; the last one is in another group, so that
// sessions move between groups.
func crossing(n, i int) netip.Addr {
	n += i - n%perHistory
	a := [4]byte{100, 64, byte(n >> 8), byte(n)}
	if n%perHistory == perHistory-1 {
		a[1] = 70
	}
	return netip.AddrFrom4(a)
}

func groupedKey(inside netip.Addr) subscriber.Key {
	group := "default"
	if inside.As4()[1] == 70 {
		group = "other"
	}
	return subscriber.Key{Group: group, Inside: inside}
}

// disordered repeats some events, swaps some, and adds the attributes of real ones. The
// attributes are the same in all events of a session, because the feed entry of a usual
// Stop has no attributes that only the Stop has.
func disordered(rng *rand.Rand, events []subscriber.Event) []subscriber.Event {
	var list []subscriber.Event
	for i, ev := range events {
		if ev.Inside.IsValid() {
			a := ev.Inside.As4()
			n := int(a[2])<<8 | int(a[3])
			ev.Inside = crossing(n, n%perHistory)
		}
		session := len(ev.AcctSessionID)
		for _, c := range []byte(ev.AcctSessionID) {
			session += int(c)
		}
		if session%7 == 3 {
			ev.UserName = "user %/\xff" + ev.AcctSessionID
		}
		if session%5 == 2 {
			ev.Class, ev.CallingStationID = "gold \x00", "00-11-22"
		}
		ev.InputOctets, ev.OutputOctets = uint64(i)*1000, uint64(i)*7
		ev.NASAddress = netip.AddrFrom4([4]byte{192, 0, 2, 1})
		if ev.Kind == subscriber.EventStop {
			ev.TerminateCause = uint32(rng.IntN(3))
		}
		list = append(list, ev)
		for rng.IntN(4) == 0 {
			list = append(list, ev)
		}
	}
	for range len(list) / 4 {
		i := rng.IntN(len(list))
		j := min(i+1+rng.IntN(4), len(list)-1)
		list[i], list[j] = list[j], list[i]
	}
	return list
}

// compareSides compares all data in the databases of both sides.
func compareSides(t *testing.T, fast, general *side) {
	t.Helper()
	for _, group := range []string{"default", "other", codec.Reserved} {
		f, g := fast.end(t, group), general.end(t, group)
		for part, got := range f {
			if !reflect.DeepEqual(got, g[part]) {
				t.Errorf("group %s, %s: %s", group, part, firstDifference(got, g[part]))
			}
		}
	}
}

// end returns the data of a group, by kind and then by key. It leaves out identifiers of
// feed entries and rounds times to live, because both depend on the moment.
func (s *side) end(t *testing.T, group string) map[string]map[string]string {
	t.Helper()
	ctx := t.Context()
	end := map[string]map[string]string{"records": {}, "states": {}, "restarts": {}, "online": {}, "feed": {}}
	rounded := func(key string) time.Duration {
		return s.client.PTTL(ctx, key).Val().Round(10 * time.Minute)
	}
	for _, name := range s.client.Keys(ctx, strings.TrimSuffix(codec.RecordPattern(group), "sub:*")+"*").Val() {
		switch rest := strings.TrimPrefix(name, "sessiond:{"+group+"}:"); {
		case strings.HasPrefix(rest, "sub:"):
			key, _ := codec.ParseRecordKey(name)
			r := codec.ParseRecord(key, s.client.HGetAll(ctx, name).Val())
			r.Version = ""
			end["records"][name] = fmt.Sprintf("%+v, for %v", r, rounded(name))
		case strings.HasPrefix(rest, "sess:"):
			end["states"][name] = fmt.Sprintf("%s, for %v", s.client.Get(ctx, name).Val(), rounded(name))
		case strings.HasPrefix(rest, "nas:"):
			at, _, _ := strings.Cut(s.client.Get(ctx, name).Val(), " ")
			end["restarts"][name] = fmt.Sprintf("%s, for %v", at, rounded(name))
		}
	}
	maps.Copy(end["online"], s.client.HGetAll(ctx, codec.OnlineKey(group)).Val())
	for _, c := range changes(t, s.dbs[0], group) {
		r := c.Record
		r.Version, r.ExpiresAt = "", time.Time{}
		end["feed"][r.Inside.String()] += fmt.Sprintf("%v %v %d %+v\n", c.Kind, c.Reason, c.Cause, r)
	}
	return end
}

// firstDifference returns the first difference between two results.
func firstDifference(got, want map[string]string) string {
	names := slices.Collect(maps.Keys(got))
	names = slices.AppendSeq(names, maps.Keys(want))
	slices.Sort(names)
	for _, name := range names {
		if got[name] != want[name] {
			return fmt.Sprintf("%s\nby the fast scripts\n%s\nby the general script alone\n%s", name, got[name], want[name])
		}
	}
	return "none"
}

// calls returns the number of calls of the scripts.
func (s *side) calls(scripts ...*redis.Script) (n int) {
	for _, script := range scripts {
		n += s.sent[script.Hash()]
	}
	return n
}
