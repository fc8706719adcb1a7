package system

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"layeh.com/radius/rfc2866"

	"github.com/sessiond/sessiond/internal/rig"
)

// TestRedisFull_DEL01: a Redis without free memory takes no new subscriber, and every way
// to end one still ends it: a Stop, sessionctl, a raw DEL, expiry; at once and long after
// the lease would have expired. Ended sessions stay ended once there is memory again.
func TestRedisFull_DEL01(t *testing.T) {
	w := start(t, rig.Options{Memory: true, Hold: 5 * time.Second, Guard: "minimum: 100"})
	address := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{100, 64, 1, byte(i)}) }
	session := func(i int) rig.Session { return sessionOf(address(i), fmt.Sprint("s-", i)) }
	for i := range 9 {
		w.online(session(i))
	}
	w.redis("CONFIG", "SET", "maxmemory", "1")

	ended := func(i int, how string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(w.ctx, 7*time.Second) // an expiry is noticed within 5 s
		defer cancel()
		if _, err := w.AwaitState(ctx, address(i), "HELD"); err != nil {
			t.Errorf("%s does not end a subscriber: %v", how, err)
		}
	}
	ends := func(first int) {
		t.Helper()
		short, cancel := context.WithTimeout(w.ctx, 3*time.Second)
		defer cancel()
		if err := w.Report(short, rfc2866.AcctStatusType_Value_Stop, session(first)); err != nil {
			t.Errorf("a Stop is not answered: %v", err)
		}
		ended(first, "a Stop")
		w.ctl("subscriber", "delete", "--yes", address(first+1).String())
		ended(first+1, "sessionctl")
		w.redis("DEL", recordKey(address(first+2)))
		ended(first+2, "a raw DEL")
		w.redis("PEXPIRE", recordKey(address(first+3)), "1")
		ended(first+3, "expiry")
	}
	ends(0)
	short, cancel := context.WithTimeout(w.ctx, 3*time.Second)
	defer cancel()
	if err := w.Report(short, rfc2866.AcctStatusType_Value_Start, session(20)); err == nil {
		t.Error("a Start is answered")
	}
	out, err := w.Daemon.Ctl(w.ctx, "subscriber", "put", address(21).String(), "--user", "x")
	if err == nil || !strings.Contains(err.Error(), "Redis is full") {
		t.Errorf("put: %q, %v", out, err)
	}
	w.must(w.Until(w.ctx, "more time to pass than the lease has", func() (bool, error) {
		ttl, err := w.Redis.CLI(w.ctx, "OBJECT", "IDLETIME", recordKey(address(8)))
		return err == nil && len(strings.TrimSpace(ttl)) > 1, err // ten seconds
	}))
	if owner := w.redis("EXISTS", "sessiond:{default}:owner"); owner != "1" {
		t.Error("the lease has run out")
	}
	ends(4)

	w.redis("CONFIG", "SET", "maxmemory", "0")
	w.soon(5*time.Second, func(ctx context.Context) error {
		return w.Report(ctx, rfc2866.AcctStatusType_Value_Start, session(20))
	})
	_, err = w.AwaitState(w.ctx, address(20), "ACTIVE")
	w.must(err)
	list := w.ctl("-o", "json", "subscriber", "list")
	if strings.Count(list, "\n") != 2 || !strings.Contains(list, address(8).String()) {
		t.Errorf("online in the end:\n%s", list)
	}
	for i := range 8 {
		w.must(w.awaitFree(w.ctx, address(i)))
	}
}
