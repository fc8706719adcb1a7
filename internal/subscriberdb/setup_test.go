package subscriberdb

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/testenv"
)

const testTTL = 45 * time.Minute

var (
	t0      = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	addr    = netip.MustParseAddr("100.64.0.1")
	next    = netip.MustParseAddr("100.64.0.2")
	noAddr  netip.Addr
	foreign = netip.MustParseAddr("203.0.113.9")
	away    = netip.MustParseAddr("100.70.0.1")
)

func testGroups() []Group {
	return []Group{
		{Name: "default", Inside: []netip.Prefix{netip.MustParsePrefix("100.64.0.0/16")}, RecordTTL: testTTL},
		{Name: "other", Inside: []netip.Prefix{netip.MustParsePrefix("100.70.0.0/16")}, RecordTTL: testTTL},
	}
}

func newDB(t testing.TB, client redis.UniversalClient, change ...func(*Options)) *DB {
	t.Helper()
	o := Options{Client: client, Groups: testGroups(), Node: "test"}
	for _, f := range change {
		f(&o)
	}
	db, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// event returns an accounting event of session id at t0 plus after.
func event(kind subscriber.EventKind, id string, inside netip.Addr, after time.Duration) subscriber.Event {
	return subscriber.Event{
		Kind:      kind,
		SessionID: subscriber.SessionID{Client: "bng1", NAS: "nas1", AcctSessionID: id},
		UserName:  "user-" + id, Inside: inside, At: t0.Add(after), Stamp: t0.Add(after), SessionTime: -1,
	}
}

func start(id string, inside netip.Addr, after time.Duration) subscriber.Event {
	return event(subscriber.EventStart, id, inside, after)
}

func interim(id string, inside netip.Addr, after time.Duration) subscriber.Event {
	return event(subscriber.EventInterim, id, inside, after)
}

func stop(id string, inside netip.Addr, after time.Duration) subscriber.Event {
	return event(subscriber.EventStop, id, inside, after)
}

func record(t testing.TB, db *DB, events ...subscriber.Event) {
	t.Helper()
	for i, err := range db.Record(t.Context(), events) {
		if err != nil {
			t.Fatalf("event %d: %v", i, err)
		}
	}
}

func key(inside netip.Addr) subscriber.Key {
	if inside == away {
		return subscriber.Key{Group: "other", Inside: inside}
	}
	return subscriber.Key{Group: "default", Inside: inside}
}

// online returns the session at an address, "" for none.
func online(t testing.TB, db *DB, inside netip.Addr) string {
	t.Helper()
	r, err := db.Get(t.Context(), key(inside))
	if errors.Is(err, ErrNotFound) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	return r.AcctSessionID
}

// change is a change with the record as a reader of the feed has it.
type change struct {
	subscriber.Change
	Record subscriber.Record
}

// changes reads a group's feed from its beginning, as a reader that keeps the records.
func changes(t testing.TB, db *DB, group string) []change {
	t.Helper()
	var list []subscriber.Change
	for after := "0-0"; ; {
		more, last, err := db.Feed(t.Context(), group, after, 10_000, 0, nil)
		if err != nil {
			t.Fatal(err)
		}
		if last == after {
			break
		}
		list, after = append(list, more...), last
	}
	stands := map[netip.Addr]subscriber.Packed{}
	told := make([]change, len(list))
	for i := range list {
		c := &list[i]
		packed := c.Record
		if c.Partial {
			packed = stands[c.Record.Inside()]
			packed.Refresh(&c.Record)
		}
		stands[c.Record.Inside()] = packed
		told[i] = change{*c, packed.Record()}
	}
	return told
}

// story returns the feed as readable lines.
func story(list []change) []string {
	var lines []string
	for _, c := range list {
		line := codec.KindName(c.Kind) + " " + c.Record.Inside.String() + " " + c.Record.AcctSessionID
		if c.Reason != 0 {
			line += " " + c.Reason.String()
		}
		lines = append(lines, line)
	}
	return lines
}

// answers waits until Redis answers again: the client has one pool of connections for
// pipelines, which probes use, and one for other commands.
func answers(t testing.TB, dbs ...*DB) {
	t.Helper()
	testenv.Eventually(t, "Redis answers", func() bool {
		for _, db := range dbs {
			if db.Probe(t.Context()) != nil || db.client.Ping(t.Context()).Err() != nil {
				return false
			}
		}
		return true
	})
}

// commandCounter counts the commands of pipelines by name, and calls of scripts by script
// hash. It is for one goroutine.
type commandCounter struct{ sent map[string]int }

func (c commandCounter) DialHook(next redis.DialHook) redis.DialHook { return next }

func (c commandCounter) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (c commandCounter) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		for _, cmd := range cmds {
			name := cmd.Name()
			if name == "evalsha" {
				name = cmd.Args()[1].(string)
			}
			c.sent[name]++
		}
		return next(ctx, cmds)
	}
}
