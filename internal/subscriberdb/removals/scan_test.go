package removals

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"testing"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
	"github.com/sessiond/sessiond/internal/subscriberdb/redistest"
)

// TestNoticeDoesNotWaitForAScan_DEL08: a removal that is notified while many addresses are
// scanned is told before the scan ends.
func TestNoticeDoesNotWaitForAScan_DEL08(t *testing.T) {
	const group, batches = "default", 60
	client := redistest.Start(t)
	victim := subscriber.Key{Group: group, Inside: netip.MustParseAddr("100.64.255.1")}
	args := []any{"hset", codec.OnlineKey(group)}
	first := netip.MustParseAddr("100.64.0.0")
	for range batches * redisconn.ScanCount {
		args = append(args, first.String(), "a/b/c")
		first = first.Next()
	}
	args = append(args, victim.Inside.String(), "a/b/c")
	if err := client.Do(t.Context(), args...).Err(); err != nil {
		t.Fatal(err)
	}
	name := codec.RecordKey(group, victim.Inside)
	if err := client.HSet(t.Context(), name, "user_name", "u").Err(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var scanned atomic.Int32
	w := New(Options{
		Client: redisconn.New(client), Groups: func() []string { return []string{group} },
		Logger:   slog.New(slog.DiscardHandler),
		Severity: func(context.Context) slog.Level { return slog.LevelError },
		Gone: func(ctx context.Context, _ string, _ []netip.Addr) ([]netip.Addr, error) {
			if scanned.Add(1) == 3 {
				return nil, client.Del(ctx, name).Err()
			}
			return nil, nil
		},
	})
	told := ""
	err := w.WatchRemovals(ctx, func(string) bool { return true }, func(k subscriber.Key, why subscriber.Reason) {
		told = fmt.Sprintf("%v %v", k.Inside, why)
		if at := scanned.Load(); at > batches/2 {
			t.Errorf("told after batch %d", at)
		}
		cancel()
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("%v %v", victim.Inside, subscriber.ReasonRemovedInDatabase); told != want {
		t.Errorf("told %q, want %q", told, want)
	}
}
