package subscriberdb

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
	"github.com/sessiond/sessiond/internal/subscriberdb/redistest"
)

// TestRecordsInOrder: a start, a comparison without pauses and the sweep after a NAS
// restart process records in order of inside address.
func TestRecordsInOrder(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client)
		const n = 2*redisconn.ScanCount + 7
		var events []subscriber.Event
		for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(n) {
			events = append(events, start(fmt.Sprint(i), netip.AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)}), 0))
		}
		record(t, db, events...)
		var inside []netip.Addr
		check := func(what string, want int, err error) {
			t.Helper()
			if err != nil || len(inside) != want || !slices.IsSortedFunc(inside, netip.Addr.Compare) {
				t.Errorf("%s: %d addresses, in order: %v; %v", what, len(inside), slices.IsSortedFunc(inside, netip.Addr.Compare), err)
			}
			inside = nil
		}
		check("records", n, db.Records(t.Context(), "default", func(records []subscriber.Record) error {
			for i := range records {
				inside = append(inside, records[i].Inside)
			}
			return nil
		}))
		byHand := netip.MustParseAddr("100.64.99.1")
		client.HSet(t.Context(), codec.RecordKey("default", byHand), "version", "by hand")
		check("versions", n+1, db.VersionsInOrder(t.Context(), "default", n, func(standing []RecordVersion) error {
			for _, s := range standing {
				if (s.Version == subscriber.Version{}) != (s.Inside == byHand) {
					t.Errorf("version of %s is %v", s.Inside, s.Version)
				}
				inside = append(inside, s.Inside)
			}
			return nil
		}))
		record(t, db, event(subscriber.EventAccountingOff, "", noAddr, time.Hour))
		check("ends", n, db.sweepAll(t.Context(), func(_ string, some []netip.Addr, _ func(int, *subscriber.Packed)) {
			inside = append(inside, some...)
		}))
		compareOnline(t, db, map[netip.Addr]string{})
	})
}
