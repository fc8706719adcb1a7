package subscriberdb

import (
	"net/netip"
	"testing"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redistest"
)

// TestEndsWhenFull_DEL01: a Redis without free memory begins no session and ends every one,
// with an entry in the feed: with and without the session in the daemon's cache, also if
// the session state is lost, and in one call with refused events.
func TestEndsWhenFull_DEL01(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t)
	warm := newDB(t, client)
	setMarker(t, warm, "default")
	address := func(i byte) netip.Addr { return netip.AddrFrom4([4]byte{100, 64, 2, i}) }
	ids := []string{"s0", "s1", "s2", "s3", "s4", "s5"}
	for i, id := range ids {
		record(t, warm, start(id, address(byte(i)), 0))
	}
	forgotten := codec.SessionKey("default", subscriber.SessionID{Client: "bng1", NAS: "nas1", AcctSessionID: ids[2]})
	if n, err := client.Del(t.Context(), forgotten).Result(); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if err := client.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	cold := newDB(t, client)
	for i, db := range []*DB{warm, cold, cold} {
		record(t, db, stop(ids[i], address(byte(i)), 60e9))
	}
	errs := warm.Record(t.Context(), []subscriber.Event{
		start("new", address(100), 0), stop(ids[3], address(3), 60e9), interim(ids[5], address(5), 60e9),
	})
	if errs[1] != nil || !IsFull(errs[0]) || !IsFull(errs[2]) {
		t.Errorf("a Start, a Stop and an Interim together: %v", errs)
	}
	if ended, err := cold.Delete(t.Context(), []subscriber.Key{key(address(4))}, subscriber.ReasonAdmin, nil); len(ended) != 1 || err != nil {
		t.Errorf("by hand: %v, %v", ended, err)
	}
	if n, err := client.Del(t.Context(), codec.RecordKey("default", address(5))).Result(); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if err := cold.AnnounceDeleted(t.Context(), []subscriber.Key{key(address(5))}, subscriber.ReasonRemovedInDatabase); err != nil {
		t.Errorf("bury: %v", err)
	}
	record(t, warm, event(subscriber.EventAccountingOff, "", noAddr, 90e9))
	told := map[netip.Addr]bool{}
	for _, c := range changes(t, warm, "default") {
		told[c.Record.Inside] = c.Kind == subscriber.Deleted
	}
	for i := range ids {
		if at := address(byte(i)); online(t, warm, at) != "" || !told[at] {
			t.Errorf("session %s is online or was not told to have ended", ids[i])
		}
	}
	if done, err := warm.SetOwner(t.Context(), "default", "", "cgn1", 10e9); !done || err != nil {
		t.Errorf("the lease: %v, %v", done, err)
	}
	if done, err := warm.SetOwner(t.Context(), "default", "cgn1", "cgn1 again", 10e9); !done || err != nil {
		t.Errorf("the lease once more: %v, %v", done, err)
	}
	if err := warm.TellPosition(t.Context(), "default", "cgn1", "1-1"); err != nil {
		t.Errorf("how far the feed is read: %v", err)
	}
}
