package acctload

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

// play takes n turns of a script; every request settles before the next turn.
func play(s script, p *population, now time.Duration, n int) string {
	text := ""
	for range n {
		kind, i, a := s.next(turn{now: now})
		if a == over {
			return text + "over"
		}
		p.event(kind, i, 0)
		p.settle(kind, i, true)
		text += fmt.Sprintf("%v %d, ", kind, i)
	}
	return text
}

func someone(subscribers int) *population {
	o := &Options{Subscribers: subscribers, Sockets: 1, Inside: netip.MustParsePrefix("100.64.0.0/10")}
	return newPopulation(o, 0, 1)
}

func TestRestartsTellTheStoryOfAReboot(t *testing.T) {
	p := someone(2)
	r := newRestarts(time.Second, p)
	if a := answerOf(r, turn{outstanding: 1}); a != wait {
		t.Errorf("an Accounting-On overtakes requests under way: %v", a)
	}
	got := play(r, p, 0, 1)
	if a := answerOf(r, turn{outstanding: 1}); a != wait {
		t.Errorf("a Start overtakes the Accounting-On: %v", a)
	}
	got += play(r, p, 0, 5) + play(r, p, time.Second, 2)
	if want := "accounting-on -1, start 0, start 1, interim 0, interim 1, interim 0, accounting-on -1, start 0, "; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func answerOf(s script, t turn) answer {
	_, _, a := s.next(t)
	return a
}

func TestRounds(t *testing.T) {
	p := someone(2)
	if got := play(&rounds{population: p, kind: KindStop, count: 2, once: true}, p, 0, 9); got != "stop 0, stop 1, over" {
		t.Error(got)
	}
	again := &rounds{population: p, kind: KindStart, count: 2}
	if got := play(again, p, 0, 3); got != "start 0, start 1, start 0, " {
		t.Error(got)
	}
	p.subscribers[1].busy = true
	if a := answerOf(again, turn{}); a != wait {
		t.Errorf("a subscriber has two requests under way: %v", a)
	}
}

// TestMixIsSteady: from the beginning as many sessions end as begin, and the
// mean number of Interims is the wanted one.
func TestMixIsSteady(t *testing.T) {
	p := someone(1000)
	random := rand.New(rand.NewPCG(1, 1))
	s, online := scriptOf(&Options{Scenario: Mix, Interims: 3}, p, random)
	for i := range online {
		p.subscribers[i].online = true
	}
	var counts [kinds]int
	for range 20_000 {
		kind, i, _ := s.next(turn{})
		counts[kind]++
		p.event(kind, i, 0)
		p.settle(kind, i, true)
	}
	near := func(kind Kind, want int) {
		if n := counts[kind]; n < want*9/10 || n > want*11/10 {
			t.Errorf("%d of %v, want about %d", n, kind, want)
		}
	}
	near(KindStart, 4000)
	near(KindInterim, 12_000)
	near(KindStop, 4000)
	for i := range p.subscribers {
		p.subscribers[i].busy = true
	}
	if a := answerOf(s, turn{}); a != wait {
		t.Errorf("everybody is busy, yet: %v", a)
	}
}
