package subscriberdb

import (
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// TestPoisonedGroupIsTold: where nothing of a group can go on, as its feed or its hash of
// online addresses is of another type, the probe says so, and what to do.
func TestPoisonedGroupIsTold(t *testing.T) {
	t.Parallel()
	client := realRedis(t)
	db := newDB(t, client)
	for _, key := range []string{feedKey("default"), onlineKey("default")} {
		if err := client.Set(t.Context(), key, "garbage", 0).Err(); err != nil {
			t.Fatal(err)
		}
		probing(t, db, "key "+key+" is of another type, as somebody made it: delete it")
		if err := client.Del(t.Context(), key).Err(); err != nil {
			t.Fatal(err)
		}
		probing(t, db, "")
		record(t, db, event(subscriber.EventStart, "a"+key, addr, time.Second), event(subscriber.EventStop, "a"+key, addr, 2*time.Second))
	}
}
