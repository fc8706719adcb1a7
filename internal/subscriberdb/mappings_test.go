package subscriberdb

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriberdb/redistest"
)

func manyMappings(n int) []nat.Mapping {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	list := make([]nat.Mapping, n)
	for i := range list {
		outside := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i / 5000)}), uint16(60000+i%5000))
		list[i] = nat.Mapping{
			Group: "default", Kind: nat.MappingStatic, Owner: nat.Owner{UserName: fmt.Sprintf("subscriber%d@example.net", i)}, InsidePort: 443,
			Outside: nat.Endpoint{Protocol: nat.ProtocolTCP, AddrPort: outside}, CreatedAt: at,
		}
	}
	return list
}

func readMappings(t *testing.T, db *DB) map[nat.Endpoint]nat.Mapping {
	t.Helper()
	got := map[nat.Endpoint]nat.Mapping{}
	err := db.Mappings(t.Context(), "default", func(list []nat.Mapping) error {
		for _, m := range list {
			got[m.Outside] = m
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// TestMappings_I7: mappings are stored, read back and removed; what cannot be read is garbage,
// and hides no other.
func TestMappings_I7(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		var garbage []Garbage
		db := newDB(t, client, func(o *Options) {
			o.Garbage = func(_ string, kind Garbage) { garbage = append(garbage, kind) }
		})
		if got := readMappings(t, db); len(got) != 0 {
			t.Errorf("at first there are %v", got)
		}
		list := manyMappings(1300)
		if err := db.SaveMappings(t.Context(), "default", list, nil); err != nil {
			t.Fatal(err)
		}
		text, err := client.HGet(t.Context(), "sessiond:{default}:mappings", "tcp/198.51.100.0:60001").Result()
		if err != nil || text != `{"kind":"static","user_name":"subscriber1@example.net","inside_port":443,"created_at":"2026-03-01T12:00:00Z"}` {
			t.Errorf("stored as %s, %v", text, err)
		}
		got := readMappings(t, db)
		for _, m := range list {
			if got[m.Outside] != m {
				t.Fatalf("%v is read as %+v", m.Outside, got[m.Outside])
			}
		}
		if err := client.HSet(t.Context(), "sessiond:{default}:mappings", "tcp/nowhere", "{}").Err(); err != nil {
			t.Fatal(err)
		}
		if n, err := db.CountMappings(t.Context(), "default"); err != nil || n != 1301 {
			t.Errorf("%d fields, %v; want 1301", n, err)
		}
		if got := readMappings(t, db); len(got) != 1300 || len(garbage) != 1 {
			t.Errorf("%d mappings and %v beside garbage", len(got), garbage)
		}
		var gone []nat.Endpoint
		for _, m := range list[1:] {
			gone = append(gone, m.Outside)
		}
		if err := db.SaveMappings(t.Context(), "default", nil, gone); err != nil {
			t.Fatal(err)
		}
		if got := readMappings(t, db); len(got) != 1 || got[list[0].Outside] != list[0] {
			t.Errorf("left are %v", got)
		}
		stop := errors.New("enough")
		if err := db.Mappings(t.Context(), "default", func([]nat.Mapping) error { return stop }); !errors.Is(err, stop) {
			t.Errorf("an error of yield became %v", err)
		}
		if err := client.Set(t.Context(), "sessiond:{default}:mappings", "x", 0).Err(); err != nil {
			t.Fatal(err)
		}
		if got := readMappings(t, db); len(got) != 0 {
			t.Errorf("a key of another type has %v", got)
		}
	})
}

// BenchmarkMappings reads all mappings of a group, as a start does; one operation is one.
func BenchmarkMappings(b *testing.B) {
	client := redistest.Start(b, benchRedis...)
	for _, n := range []int{10_000, 100_000} {
		b.Run(fmt.Sprintf("mappings=%d", n), func(b *testing.B) {
			db := benchDB(b, client)
			if err := db.SaveMappings(b.Context(), "default", manyMappings(n), nil); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i := 0; i < b.N; i += n {
				err := db.Mappings(b.Context(), "default", func([]nat.Mapping) error { return nil })
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
