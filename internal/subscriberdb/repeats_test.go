package subscriberdb

import (
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redistest"
)

// told describes the time attributes in a NAS's events.
type told struct {
	stamps, delays bool
	ahead          time.Duration // lead of its clock over ours
	counts         bool          // Acct-Delay-Time increases when an event is sent again
}

// sent returns the event, which happened at its At, as it arrives after the given time.
func (n told) sent(ev subscriber.Event, later time.Duration) subscriber.Event {
	happened := ev.At
	ev.Arrival, ev.At, ev.Stamp, ev.Delay = happened.Add(later), time.Time{}, time.Time{}, -1
	if n.stamps {
		ev.Stamp = happened.Add(n.ahead).Truncate(time.Second)
	}
	if n.delays {
		ev.Delay = 0
	}
	if n.delays && n.counts {
		ev.Delay = later
	}
	return ev
}

// TestStartSentAgainLater_SES02_ACCT15: a Start is sent again 40 s and minutes later, when
// no reply cache has it any more, to either of two daemons that both take accounting: it is
// the same session and begins nothing. After the Stop it does not begin the session again.
func TestStartSentAgainLater_SES02_ACCT15(t *testing.T) {
	for _, n := range []told{
		{stamps: true}, {stamps: true, ahead: -8 * time.Hour}, {stamps: true, ahead: 3 * time.Hour}, {stamps: true, ahead: -500_000 * time.Hour},
		{stamps: true, delays: true}, {stamps: true, delays: true, counts: true, ahead: -8 * time.Hour}, {stamps: true, delays: true, ahead: -8 * time.Hour},
		{delays: true}, {delays: true, counts: true}, {},
	} {
		t.Run(fmt.Sprintf("%+v", n), func(t *testing.T) {
			redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
				var last subscriber.Verdict
				observe := func(o *Options) { o.OnVerdict = func(_ string, v subscriber.Verdict) { last = v } }
				one, two := newDB(t, client, observe), newDB(t, client, observe)
				tell := func(db *DB, ev subscriber.Event, later time.Duration, want subscriber.Verdict) {
					t.Helper()
					if record(t, db, n.sent(ev, later)); last != want {
						t.Errorf("%+v after %v: %v, want %v", ev, later, last, want)
					}
				}
				first := start("a", addr, 0)
				tell(one, first, 0, subscriber.Opened)
				tell(two, first, 40*time.Second, subscriber.Refreshed)
				tell(one, first, 41*time.Second, subscriber.Refreshed)
				tell(two, lasting(interim("a", addr, time.Minute), time.Minute), 0, subscriber.Refreshed)
				tell(one, first, 90*time.Second, subscriber.Refreshed)
				tell(two, first, 10*time.Minute, subscriber.Refreshed)
				tell(one, lasting(interim("a", addr, 11*time.Minute), 11*time.Minute), 0, subscriber.Refreshed)

				brief := start("b", next, 20*time.Minute)
				tell(one, brief, 0, subscriber.Opened)
				tell(two, lasting(stop("b", next, 21*time.Minute), time.Minute), 0, subscriber.Stopped)
				tell(one, brief, 2*time.Minute, subscriber.Ended)
				tell(two, brief, 3*time.Minute, subscriber.Ended)
				if online(t, one, addr) != "a" || online(t, two, next) != "" {
					t.Errorf("online are %q and %q", online(t, one, addr), online(t, two, next))
				}
				created := 0
				for _, c := range changes(t, one, "default") {
					if c.Kind == subscriber.Created {
						created++
					}
				}
				if created != 2 {
					t.Errorf("%d records were created, want one of each session", created)
				}
			})
		})
	}
}

// TestStartOfWhoWasPutOut_SES06_SES10: a repeated Start of a session that lost its address
// to another one is recognized by its stamp, even from a clock that shows 1970, or by its
// packet, at any later time, and by any daemon.
func TestStartOfWhoWasPutOut_SES06_SES10(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		for name, stamp := range map[string]time.Time{"none": {}, "1970": time.Unix(3600, 0), "right": t0} {
			var seen verdicts
			db := newDB(t, client, func(o *Options) { o.OnVerdict = seen.observe })
			of := func(id string, digest uint64, stamp time.Time, after time.Duration) subscriber.Event {
				ev := start(name+id, addr, after)
				ev.Arrival, ev.At, ev.Stamp, ev.Delay, ev.Digest = ev.At, time.Time{}, stamp, -1, digest
				return ev
			}
			record(t, db, of("a", 7, stamp, 0), of("b", 8, t0.Add(time.Minute), time.Minute))
			if got := latest(&seen); got != subscriber.TookOver {
				t.Fatalf("stamp %s: the next one %v", name, got)
			}
			db = newDB(t, client, func(o *Options) { o.OnVerdict = seen.observe })
			record(t, db, of("a", 7, stamp, 4*time.Hour))
			if got := latest(&seen); got != subscriber.Ended || online(t, db, addr) != name+"b" {
				t.Errorf("stamp %s: again %v, online is %s", name, got, online(t, db, addr))
			}
			remove(t, db, addr)
			if err := client.HDel(t.Context(), codec.OnlineKey("default"), addr.String()).Err(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestStartOfWhoARestartEnded_SES10: a repeated Start without a stamp, of a session that a
// restart of its NAS or an operator ended, does not evict a session that began since.
func TestStartOfWhoARestartEnded_SES10(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, db *DB){
		"restart": func(t *testing.T, db *DB) {
			t.Helper()
			record(t, db, event(subscriber.EventAccountingOn, "", noAddr, time.Minute))
			if err := db.sweepAll(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
		},
		"by hand": func(t *testing.T, db *DB) {
			t.Helper()
			if _, err := db.Delete(t.Context(), []subscriber.Key{key(addr)}, subscriber.ReasonAdmin, nil); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
				now := t0
				open := func() *DB { return newDB(t, client, func(o *Options) { o.Now = func() time.Time { return now } }) }
				of := func(id string, digest uint64) subscriber.Event {
					ev := start(id, addr, 0)
					ev.Arrival, ev.At, ev.Stamp, ev.Delay, ev.Digest = now, time.Time{}, time.Time{}, -1, digest
					return ev
				}
				db := open()
				record(t, db, of("a", 7))
				now = t0.Add(time.Minute)
				end(t, db)
				now = t0.Add(2 * time.Minute)
				record(t, db, of("b", 8))
				now = t0.Add(2 * time.Hour)
				record(t, open(), of("a", 7))
				if got := online(t, db, addr); got != "b" {
					t.Errorf("%q is online after the Start of the ended session came again", got)
				}
			})
		})
	}
}
