package subscriber

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/testenv"
)

// TestNoSessionStaysAway_SES07: after any events, by any clocks, an online
// session that is reported has its address after its second Interim at the
// latest. The same holds after each false restart of its NAS, deletion or
// expiry. Its NAS may have used its identifier before.
func TestNoSessionStaysAway_SES07(t *testing.T) {
	later := 0
	for seed := range uint64(testenv.Walks(5_000)) {
		rng := rand.New(rand.NewPCG(seed, 5))
		f := newFog(rng)
		f.wander(t, 5+rng.IntN(40))
		s := f.session(fmt.Sprint(rng.IntN(6)), fmt.Sprint("z", rng.IntN(3)))
		started := rng.IntN(4) > 0
		if started {
			f.tell(t, s.event(EventStart, f.now))
		}
		for i := range 6 {
			if i > 2 {
				f.befall(t)
			}
			f.now = f.now.Add(time.Duration(5+rng.IntN(25)) * time.Minute)
			f.tell(t, s.event(EventInterim, f.now))
			r, up := f.w.records[s.inside]
			// Without a Start, another User-Name under an identifier may be a rewritten one.
			switch has := up && r.besideLeg(s.id) && (r.UserName == s.user || !started); {
			case has:
			case i == 0:
				later++
			default:
				t.Fatalf("seed %d, Interim %d: %+v has the address of %+v", seed, i+1, r, s)
			}
		}
	}
	t.Logf("%d of 5000 sessions had to wait for their second Interim", later)
}

// fog is a database after random, often contradictory events.
type fog struct {
	rng    *rand.Rand
	w      *world
	now    time.Time
	clocks map[SessionID]*Clock        // as learned, by NAS
	truly  map[SessionID]time.Duration // offset of each NAS's clock, true
}

func newFog(rng *rand.Rand) *fog {
	return &fog{rng: rng, w: newWorld(), now: t0, clocks: map[SessionID]*Clock{}, truly: map[SessionID]time.Duration{}}
}

func (f *fog) nas() SessionID {
	id := SessionID{Client: "bng", NAS: fmt.Sprint("nas", f.rng.IntN(2))}
	if f.clocks[id] == nil {
		f.clocks[id], f.truly[id] = new(Clock), time.Duration(f.rng.IntN(20)-10)*time.Hour
	}
	return id
}

// wander sends events of few sessions on few addresses, with stamps and delays
// that may be wrong by hours, and sets clocks back and forth.
func (f *fog) wander(t *testing.T, n int) {
	for range n {
		f.now = f.now.Add(time.Duration(f.rng.IntN(900)) * time.Second)
		s := f.session(fmt.Sprint(f.rng.IntN(6)), fmt.Sprint("u", f.rng.IntN(3)))
		ev := s.event(EventStart+EventKind(f.rng.IntN(3)), f.now)
		ev.SessionTime = time.Duration(f.rng.IntN(4000)-1) * time.Second
		switch f.rng.IntN(6) {
		case 0:
			ev.Stamp = ev.Stamp.Add(-time.Duration(f.rng.IntN(10_000)) * time.Second)
		case 1:
			ev.Delay = time.Duration(f.rng.IntN(10_000)) * time.Second
		case 2:
			f.truly[s.id.NASOnly()] += time.Duration(f.rng.IntN(7200)-3600) * time.Second
		}
		f.tell(t, ev)
		f.befall(t)
	}
}

// befall restarts a NAS at random, or deletes a record by hand or lets it
// expire.
func (f *fog) befall(t *testing.T) {
	switch f.rng.IntN(8) {
	case 0:
		s := f.session("", "")
		on := s.event(EventAccountingOn, f.now)
		on.Inside, on.SessionTime = netip.Addr{}, -1
		on.Stamp = on.Stamp.Add(time.Duration(f.rng.IntN(600)) * time.Second)
		f.tell(t, on)
		f.w.sweep()
	case 1:
		for _, r := range f.w.records {
			f.w.end(r, []Reason{ReasonAdmin, ReasonExpired, ReasonRemovedInDatabase}[f.rng.IntN(3)], f.now)
			break
		}
	}
}

func (f *fog) tell(t *testing.T, ev Event) {
	t.Helper()
	f.clocks[ev.NASOnly()].Place(&ev)
	f.w.apply(t, ev)
}

// reported is a session as its NAS knows it.
type reported struct {
	id     SessionID
	user   string
	inside netip.Addr
	began  time.Time
	early  time.Duration // Acct-Session-Time counts from this long before the Start
	stamps bool
	fog    *fog
}

func (f *fog) session(id, user string) reported {
	nas := f.nas()
	nas.AcctSessionID = id
	return reported{
		id: nas, user: user, began: f.now, early: time.Duration(f.rng.IntN(60)) * time.Second,
		stamps: f.rng.IntN(3) > 0, fog: f,
		inside: netip.AddrFrom4([4]byte{100, 64, 0, byte(f.rng.IntN(3))}),
	}
}

func (s *reported) event(kind EventKind, now time.Time) Event {
	ev := Event{
		Kind: kind, SessionID: s.id, UserName: s.user, Inside: s.inside,
		Arrival: now, Delay: -1, SessionTime: now.Sub(s.began) + s.early,
	}
	if kind == EventStart {
		ev.SessionTime = -1
	}
	if s.stamps {
		ev.Stamp = now.Add(s.fog.truly[s.id.NASOnly()]).Truncate(time.Second)
	}
	return ev
}
