package subscriberdb

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
	"github.com/sessiond/sessiond/internal/subscriberdb/redistest"
	"github.com/sessiond/sessiond/internal/testenv"
)

// manyAddresses returns n addresses of the group default.
func manyAddresses(n int) []netip.Addr {
	list := make([]netip.Addr, n)
	for i := range list {
		list[i] = netip.AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)})
	}
	return list
}

// TestGone: addresses without a record are found among any number of others.
func TestGone(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client)
		all := manyAddresses(3*redisconn.PipelineLimit/2 + 1)
		var events []subscriber.Event
		for i, a := range all {
			events = append(events, start(fmt.Sprint(i), a, 0))
		}
		record(t, db, events...)
		check := func(asked []netip.Addr, want ...netip.Addr) {
			t.Helper()
			if got, err := db.Gone(t.Context(), "default", asked); err != nil || !slices.Equal(got, want) {
				t.Errorf("gone: %v, %v, want %v", got, err, want)
			}
		}
		check(nil)
		check(all)
		check(append(slices.Clone(all), all[0])) // one address twice
		gone := []netip.Addr{all[0], all[redisconn.PipelineLimit-1], all[redisconn.PipelineLimit], all[len(all)-1]}
		for _, a := range gone {
			client.Del(t.Context(), codec.RecordKey("default", a))
		}
		check(all, gone...)
		check([]netip.Addr{foreign}, foreign)
		if _, err := db.Gone(t.Context(), "nosuch", all); !errors.Is(err, ErrNoGroup) {
			t.Errorf("of no group: %v", err)
		}
	})
}

// TestGoneExpires: Gone makes Redis expire a record whose TTL has run out, as a read does.
func TestGoneExpires(t *testing.T) {
	client := redistest.Start(t)
	db := newDB(t, client)
	record(t, db, start("a", addr, 0), start("b", next, 0))
	client.Do(t.Context(), "DEBUG", "SET-ACTIVE-EXPIRE", "0")
	client.PExpire(t.Context(), codec.RecordKey("default", addr), time.Millisecond)
	testenv.Eventually(t, "the record that ran out is gone", func() bool {
		gone, err := db.Gone(t.Context(), "default", []netip.Addr{addr, next})
		return err == nil && slices.Equal(gone, []netip.Addr{addr})
	})
	if n := client.DBSize(t.Context()).Val(); n == 0 || client.Exists(t.Context(), codec.RecordKey("default", addr)).Val() != 0 {
		t.Errorf("%d keys, and the record among them", n)
	}
}

// TestBindingRowsAt: rows are returned in the order given, with empty ones for blocks
// without a binding.
func TestBindingRowsAt(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client)
		var put []nat.Binding
		var blocks []nat.Place
		for i := range redisconn.PipelineLimit + 7 {
			outside := netip.AddrFrom4([4]byte{198, 51, 100, byte(i)})
			b := nat.Binding{Group: "default", Blocks: nat.Blocks{Block: nat.Block{Outside: outside, First: nat.Port(1024 + i/256*512), Last: 2047}}, Holder: nat.Holder{Inside: addr, UserName: fmt.Sprint(i)}}
			blocks = append(blocks, b.Place())
			if i%5 != 0 {
				put = append(put, b)
			}
		}
		if err := db.SaveBindings(t.Context(), "default", put, nil); err != nil {
			t.Fatal(err)
		}
		rows, err := db.BindingRowsAt(t.Context(), "default", blocks)
		if err != nil || len(rows) != len(blocks) {
			t.Fatalf("%d rows of %d, %v", len(rows), len(blocks), err)
		}
		for i := range rows {
			r := &rows[i]
			if r.Place != blocks[i] || r.Stored() != (i%5 != 0) {
				t.Fatalf("row %d is of %v and stored: %v, asked for %v", i, r.Place, r.Stored(), blocks[i])
			}
			if !r.Stored() {
				continue
			}
			want := put[0]
			want.State = nat.Active
			put = put[1:]
			if b, ok := r.Binding(); !ok || b != want || !r.Is(&want) {
				t.Fatalf("row %d: %+v, want %+v", i, b, want)
			}
		}
	})
}

// TestLookupsWithoutRedis_I6: records that cannot be looked up do not count as gone.
func TestLookupsWithoutRedis_I6(t *testing.T) {
	db := newDB(t, redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"}))
	ctx, asked := t.Context(), []netip.Addr{addr}
	if gone, err := db.Gone(ctx, "default", asked); err == nil {
		t.Errorf("gone: %v", gone)
	}
	if rows, err := db.BindingRowsAt(ctx, "default", []nat.Place{{Outside: away, First: 1024}}); err == nil {
		t.Errorf("rows: %v", rows)
	}
}
