package acctload

import (
	"math/rand/v2"
	"time"
)

// A turn holds the inputs of a script's next step.
type turn struct {
	now         time.Duration
	outstanding int
}

// An answer of a script to a turn.
type answer uint8

const (
	proceed answer = iota
	wait           // no request can be sent before an outstanding one settles
	over           // no request is left to send
)

// nobody replaces the subscriber in requests of the NAS itself.
const nobody = -1

// A script is the scenario of one lane: it returns the next request, by kind
// and subscriber. It is not safe for concurrent use.
type script interface {
	next(turn) (kind Kind, subscriber int, a answer)
}

// scriptOf returns the script of a scenario, and the number of subscribers that
// must be online when it begins.
func scriptOf(o *Options, p *population, random *rand.Rand) (s script, online int) {
	everybody := len(p.subscribers)
	switch o.Scenario {
	case Start:
		return &rounds{population: p, kind: KindStart, count: everybody}, 0
	case Interim:
		return &rounds{population: p, kind: KindInterim, count: everybody}, everybody
	case Stop:
		return &rounds{population: p, kind: KindStop, count: everybody, once: true}, everybody
	case NASRestart:
		return newRestarts(o.RestartEvery, p), everybody
	}
	// The share that is online in the long run: a session takes one turn to begin,
	// one for each Interim and one to end, and is online before all but the first.
	share := (o.Interims + 1) / (o.Interims + 2)
	return &mix{population: p, random: random, interims: o.Interims}, int(share * float64(everybody))
}

// rounds sends one kind of request for each subscriber in turn.
type rounds struct {
	population *population
	kind       Kind
	count      int  // of subscribers, from the first on
	once       bool // one round only
	cursor     int
}

func (r *rounds) next(turn) (Kind, int, answer) {
	if r.cursor == r.count {
		if r.once || r.count == 0 {
			return 0, 0, over
		}
		r.cursor = 0
	}
	i := r.cursor
	if r.population.subscribers[i].busy {
		return 0, 0, wait
	}
	r.cursor++
	return r.kind, i, proceed
}

// mix takes a subscriber at random. An offline one starts a session; an online
// one goes on or stops, with chances that make the number of Interims
// geometric.
type mix struct {
	population *population
	random     *rand.Rand
	interims   float64 // mean number in a session
}

func (m *mix) next(turn) (Kind, int, answer) {
	all := m.population.subscribers
	i := m.random.IntN(len(all))
	for range len(all) {
		if !all[i].busy {
			return m.kind(&all[i]), i, proceed
		}
		if i++; i == len(all) {
			i = 0
		}
	}
	return 0, 0, wait
}

func (m *mix) kind(s *subscriber) Kind {
	switch {
	case !s.online:
		return KindStart
	case m.random.Float64()*(1+m.interims) < 1:
		return KindStop
	}
	return KindInterim
}

// restarts simulates reboots of the lane's NAS: an Accounting-On with no other
// request outstanding, a Start of every subscriber, and Interims until the next
// reboot.
type restarts struct {
	every  time.Duration
	last   time.Duration
	phase  func(turn) (Kind, int, answer)
	starts rounds
	lives  rounds
}

func newRestarts(every time.Duration, p *population) *restarts {
	count := len(p.subscribers)
	r := &restarts{
		every:  every,
		starts: rounds{population: p, kind: KindStart, count: count, once: true},
		lives:  rounds{population: p, kind: KindInterim, count: count},
	}
	r.phase = r.restart
	return r
}

func (r *restarts) next(t turn) (Kind, int, answer) { return r.phase(t) }

func (r *restarts) restart(t turn) (Kind, int, answer) {
	if t.outstanding > 0 {
		return 0, 0, wait
	}
	r.last, r.starts.cursor, r.phase = t.now, 0, r.awaitAnswer
	return KindAccountingOn, nobody, proceed
}

// awaitAnswer delays the Starts until the server has answered the
// Accounting-On.
func (r *restarts) awaitAnswer(t turn) (Kind, int, answer) {
	if t.outstanding > 0 {
		return 0, 0, wait
	}
	r.phase = r.comeBack
	return r.comeBack(t)
}

func (r *restarts) comeBack(t turn) (Kind, int, answer) {
	kind, i, a := r.starts.next(t)
	if a == over {
		r.phase = r.live
		return r.live(t)
	}
	return kind, i, a
}

func (r *restarts) live(t turn) (Kind, int, answer) {
	if t.now-r.last >= r.every {
		r.phase = r.restart
		return r.restart(t)
	}
	return r.lives.next(t)
}
