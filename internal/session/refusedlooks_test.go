package session

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sessiond/sessiond/internal/addrrange"
)

// TestRefusedLooksAreBounded_I10: of 100,000 subscribers that need ports and get none, each is
// looked at in its turn, and all looks together take a twentieth of the time.
func TestRefusedLooksAreBounded_I10(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const subscribers, look = 100_000, 8 * time.Millisecond
		l := newRefusedLooks()
		defer l.timer.Stop()
		looked := map[netip.Addr]int{}
		at := func(inside netip.Addr) {
			time.Sleep(look)
			looked[inside]++
			l.looked(inside, look)
		}
		list := make([]netip.Addr, subscribers)
		for i := range list {
			list[i] = addrrange.Address(addrrange.Number(alice) + uint32(i))
			if !l.wait(list[i], true) {
				at(list[i])
			}
		}
		if len(looked) != 1 || l.waiting.Len() != subscribers-1 {
			t.Fatalf("%d were looked at, %d wait", len(looked), l.waiting.Len())
		}
		began := time.Now()
		for time.Since(began) < time.Minute {
			<-l.due()
			inside := l.next()
			at(inside)
			l.wait(inside, true) // and begins more sessions
			if l.wait(list[1], false); l.waiting.Len() > subscribers {
				t.Fatal("one waits twice")
			}
		}
		if n, most := len(looked), int(time.Minute/look)/refusedShare+2; n > most || n < most/2 {
			t.Errorf("%d looks in a minute, want up to %d", n, most)
		}
		for inside, n := range looked {
			if n > 1 && inside != list[0] {
				t.Errorf("%v was looked at %d times while others waited", inside, n)
			}
		}
		time.Sleep(refusedRest + 1)
		if l.forget(); len(l.rests) > 0 {
			t.Errorf("%d rests are kept", len(l.rests))
		}
	})
}

// TestRefusedLooksRest: a subscriber that was refused a block rests, and then has its turn; one
// that may grow does not wait.
func TestRefusedLooksRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newRefusedLooks()
		defer l.timer.Stop()
		if l.wait(alice, true) || l.wait(bob, false) {
			t.Error("the first look waits")
		}
		began := time.Now()
		l.looked(alice, time.Millisecond)
		if l.wait(bob, false) || !l.wait(carol, true) || !l.wait(alice, false) {
			t.Error("a look at one that may grow waits, or one at another does not")
		}
		<-l.due()
		if first := l.next(); first != carol || time.Since(began) != (refusedShare-1)*time.Millisecond {
			t.Errorf("%v is due after %v", first, time.Since(began))
		}
		<-l.due()
		if second := l.next(); second != alice || time.Since(began) != refusedRest || l.due() != nil {
			t.Errorf("%v is due after %v", second, time.Since(began))
		}
		if l.wait(alice, true) {
			t.Error("after its rest a look waits")
		}
	})
}
