package faults

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// opKind is one kind of action of BNGs, the NOC or others.
type opKind string

const (
	opStart     opKind = "start"
	opLostStart opKind = "interim-first" // its Start was lost
	opClock     opKind = "start-bad-clock"
	opInterim   opKind = "interim"
	opStop      opKind = "stop"
	opTakeover  opKind = "takeover" // by another user behind the same client; the Stop was lost
	opForeign   opKind = "foreign"  // another client reports a session at the address
	opReconnect opKind = "reconnect"
	opMove      opKind = "move" // the session gets another address
	opLateStop  opKind = "late-stop"
	opLateInt   opKind = "late-interim"
	opOldStart  opKind = "old-start"
	opReordered opKind = "stop-before-start"
	opRevive    opKind = "revive" // Interim after the record was deleted by others
	opDelete    opKind = "delete"
	opDEL       opKind = "DEL"
	opExpire    opKind = "expire"
	opAgain     opKind = "start-again"       // of an online session, after the reply cache has expired
	opLateStart opKind = "start-after-end"   // the same, of an ended session
	opTwice     opKind = "interim-twice"     // unchanged, or with its delay counted up
	opService   opKind = "service"           // accounted within the session
	opTwin      opKind = "start-shared-id"   // another session of the NAS has the same identifier
	opSetBack   opKind = "takeover-set-back" // by a NAS whose clock has just been set back
	opRestart   opKind = "nas-restart"
	opBrief     opKind = "start-short-ttl"
	opPool      opKind = "pool-change"
	opMapping   opKind = "mapping-change"
)

// An op is one action. Its effect on the model is applied when it is planned, because all
// ops of a round touch different lines.
type op struct {
	kind    opKind
	line    *line
	from    *line // opMove: its line before
	session *session
	nas     string        // opRestart
	brief   *brief        // opBrief
	future  bool          // opClock: the NAS's clock is in 2036, not in 1970
	source  int           // index of the NAS's source, where it has several
	relayed bool          // late requests come through a relay that counts their delay
	boot    time.Duration // opRestart: error of the clock until NTP has set it
	drawn   int           // opPool, opMapping: what choosePool and chooseMappings decide by
	pool    poolChange    // opPool: what it decided
	mapping mappingChange // opMapping: the same
}

func (o op) String() string {
	switch {
	case o.kind == opRestart:
		return fmt.Sprintf("%s %s", o.kind, o.nas)
	case o.kind == opPool || o.kind == opMapping:
		return fmt.Sprintf("%s %d", o.kind, o.drawn)
	case o.session != nil:
		return fmt.Sprintf("%s %s %s/%s %s", o.kind, o.line.inside, o.session.nas, o.session.id, o.session.user)
	}
	return fmt.Sprintf("%s %s", o.kind, o.line.inside)
}

// weights are the relative frequencies of the kinds.
var weights = []struct {
	kind   opKind
	weight int
}{
	{opStart, 16}, {opLostStart, 3}, {opClock, 3}, {opInterim, 10}, {opStop, 12}, {opTakeover, 6}, {opForeign, 4},
	{opReconnect, 4}, {opMove, 3}, {opLateStop, 6}, {opLateInt, 6}, {opOldStart, 4}, {opReordered, 3},
	{opRevive, 6}, {opDelete, 4}, {opDEL, 5}, {opExpire, 3},
	{opAgain, 8}, {opLateStart, 4}, {opTwice, 3}, {opService, 6}, {opTwin, 4}, {opSetBack, 4},
}

// planner draws the operations of a round.
type planner struct {
	rng   *rand.Rand
	model *model
	round int
	free  []*line // not yet touched in this round, in random order
	nas   string  // the NAS that restarts in this round
	calm  bool    // see model.plan
}

// plan draws up to n operations and applies their effects to the model. With calm, each
// touches only its own line.
func (m *model) plan(rng *rand.Rand, round, n int, calm bool) []op {
	p := &planner{rng: rng, model: m, round: round, free: slices.Clone(m.lines), calm: calm}
	rng.Shuffle(len(p.free), func(i, j int) { p.free[i], p.free[j] = p.free[j], p.free[i] })
	var ops []op
	if rng.IntN(8) == 0 && !calm {
		ops = p.restart(ops, round)
	}
	for range n {
		if o, ok := p.draw(); ok {
			ops = append(ops, o)
		}
	}
	rng.Shuffle(len(ops), func(i, j int) { ops[i], ops[j] = ops[j], ops[i] })
	return ops
}

// restart plans the restart of a NAS that did not restart lately: within some seconds it
// would count as the same restart, sent again.
func (p *planner) restart(ops []op, round int) []op {
	nas := p.model.nases[p.rng.IntN(len(p.model.nases))].name
	boot := boots[p.rng.IntN(len(boots))]
	if last, ok := p.model.restarted[nas]; ok && round-last < 4 || !p.model.nas(nas).settled() {
		return ops
	}
	p.model.restarted[nas], p.nas = round, nas
	p.free = slices.DeleteFunc(p.free, func(l *line) bool {
		return l.online != nil && l.online.nas == nas || l.lapsed != nil && l.lapsed.nas == nas
	})
	p.model.restart(nas)
	return append(ops, op{kind: opRestart, nas: nas, boot: boot, source: p.rng.IntN(2)})
}

// boots are errors of clocks at boot. A clock that is behind by less than requests are
// reordered makes the restart a bit older than it is.
var boots = []time.Duration{0, 0, 30 * time.Second, 3 * time.Minute, 8 * time.Hour, -5 * time.Minute, -8 * time.Hour, -20_000 * time.Hour}

func (p *planner) draw() (op, bool) {
	total := 0
	for _, w := range weights {
		total += w.weight
	}
	at := p.rng.IntN(total)
	for _, w := range weights {
		if at -= w.weight; at < 0 {
			return p.make(w.kind)
		}
	}
	panic("faults: no kind drawn")
}

// pick takes the first free line that fits.
func (p *planner) pick(fits func(*line) bool) *line {
	i := slices.IndexFunc(p.free, fits)
	if i < 0 {
		return nil
	}
	l := p.free[i]
	p.free = slices.Delete(p.free, i, i+1)
	return l
}

// fits returns the condition on a line for an operation of the kind.
func (p *planner) fits(kind opKind) func(*line) bool {
	switch kind {
	case opStart, opLostStart, opClock, opTwin:
		return isOffline
	case opTakeover, opReconnect:
		return func(l *line) bool { return l.online != nil && len(p.peers(l.online.nas, true)) > 0 }
	case opForeign:
		return func(l *line) bool { return l.online != nil && len(p.peers(l.online.nas, false)) > 0 && !p.calm }
	case opOldStart:
		return func(l *line) bool {
			return l.online != nil && !l.online.uncertain && len(p.peers(l.online.nas, true)) > 0
		}
	case opMove:
		return func(l *line) bool {
			return l.online != nil && !l.online.shared && !l.online.uncertain && p.model.nas(l.online.nas).settled()
		}
	case opSetBack:
		return func(l *line) bool {
			n := l.online
			return n != nil && !p.model.nas(n.nas).settled() && p.model.nas(n.nas).far && n.nas != p.nas
		}
	case opLateStop:
		return func(l *line) bool { return len(l.ended) > 0 || l.lapsed != nil }
	case opLateInt:
		return func(l *line) bool { return slices.ContainsFunc(l.ended, p.lateOf(l, kind)) }
	case opAgain: // the Start of a moved session names an address of another line
		return func(l *line) bool { return l.online != nil && !l.online.moved }
	case opLateStart:
		return func(l *line) bool { return slices.ContainsFunc(l.ended, p.lateOf(l, kind)) }
	case opReordered:
		return func(l *line) bool { return l.last == "" || len(p.peers(l.last, true)) > 0 }
	case opRevive:
		return func(l *line) bool { return l.online == nil && p.revives(l.lapsed) }
	}
	return isOnline
}

// revives reports whether an Interim brings the session back: it does some seconds after a
// restart of its NAS.
func (p *planner) revives(s *session) bool {
	if s == nil || s.uncertain || !p.model.nas(s.nas).settled() {
		return false
	}
	last, ok := p.model.restarted[s.nas]
	return !ok || p.round-last >= 4
}

// isCertain reports whether sessiond knows the session's start and, after a takeover, its
// end, so that it can order late events.
func isCertain(s *session) bool { return !s.uncertain }

func (p *planner) make(kind opKind) (op, bool) {
	l := p.pick(p.fits(kind))
	if l == nil {
		return op{}, false
	}
	o := op{
		kind: kind, line: l, session: l.online,
		future: p.rng.IntN(2) == 0, source: p.rng.IntN(2), relayed: p.rng.IntN(2) == 0,
	}
	switch kind {
	case opStart:
		o.session = p.model.newSession(l.owner(), p.anyNAS())
		o.session.uncertain = !p.model.nas(o.session.nas).settled()
		l.begin(o.session)
	case opSetBack:
		o.session = p.model.newSession(fmt.Sprintf("guest-%d", p.model.sessions), l.online.nas)
		o.session.uncertain = true
		l.begin(o.session)
	case opTwin:
		return p.twin(o)
	case opLostStart, opClock:
		o.session = p.model.newSession(l.owner(), p.someNAS())
		l.begin(o.session)
	case opReconnect:
		o.session, o.source = p.model.newSession(l.owner(), p.peer(l.online.nas, true)), 0
		l.begin(o.session)
	case opTakeover:
		o.session, o.source = p.model.newSession(fmt.Sprintf("guest-%d", p.model.sessions), p.peer(l.online.nas, true)), 0
		l.begin(o.session)
	case opForeign:
		o.session = p.model.newSession("stranger-"+l.inside.String(), p.peer(l.online.nas, false))
	case opOldStart, opReordered:
		if l.last == "" {
			l.last = p.someNAS()
		}
		o.session = p.model.newSession("stranger-"+l.inside.String(), p.peer(l.last, true))
	case opStop:
		l.end()
	case opDelete, opDEL, opExpire:
		l.lapse()
	case opRevive:
		o.session = l.lapsed
		l.begin(o.session)
	case opMove:
		return p.move(o)
	case opLateStop, opLateInt, opLateStart:
		o.session = p.late(l, kind)
		o.relayed = o.relayed || o.session.nas == p.nas || p.afterRestart(o.session)
	}
	return o, true
}

// afterRestart reports whether the NAS sends no time and has restarted: its identifiers may
// be reused, so that an old Start looks like a new one.
func (p *planner) afterRestart(s *session) bool {
	n := p.model.nas(s.nas)
	_, restarted := p.model.restarted[s.nas]
	return restarted && !n.stamps && !n.delays
}

// twin begins a session under the identifier of another session of the NAS.
func (p *planner) twin(o op) (op, bool) {
	i := slices.IndexFunc(p.free, func(l *line) bool {
		return l.online != nil && !l.online.moved && p.model.nas(l.online.nas).settled() && l.online.nas != p.nas
	})
	if i < 0 {
		return op{}, false
	}
	other := p.free[i].online
	o.session = p.model.newSession(o.line.owner(), other.nas)
	o.session.id, o.session.shared, other.shared = other.id, true, true
	o.line.begin(o.session)
	return o, true
}

// move moves the session of one line to a free one.
func (p *planner) move(o op) (op, bool) {
	to := p.pick(func(l *line) bool { return isOffline(l) && l.group == o.line.group })
	if to == nil {
		return op{}, false
	}
	o.line.online = nil // the session continues, so it has no late events
	o.from, o.line = o.line, to
	o.session.moved = true
	to.begin(o.session)
	return o, true
}

// late chooses a past session of the line. If that is the lapsed one and its Stop comes, it
// ends it for good.
func (p *planner) late(l *line, kind opKind) *session {
	if kind == opLateStop && l.lapsed != nil && (len(l.ended) == 0 || p.rng.IntN(2) == 0) {
		s := l.lapsed
		l.stopLapsed()
		return s
	}
	fits := p.lateOf(l, kind)
	ended := slices.DeleteFunc(slices.Clone(l.ended), func(s *session) bool { return !fits(s) })
	return ended[p.rng.IntN(len(ended))]
}

// lateOf returns the condition on a line's ended sessions for late events of the kind. If
// the database is lost at the same time, a late event may find the line free: so its NAS
// must be behind the client of the line's next session.
func (p *planner) lateOf(l *line, kind opKind) func(*session) bool {
	return func(s *session) bool {
		return kind == opLateStop || isCertain(s) && !(kind == opLateStart && s.moved) &&
			p.model.nas(s.nas).client() == p.model.nas(l.last).client()
	}
}

// peers returns the NASes with a settled clock that are, or are not, behind the same client
// as another one.
func (p *planner) peers(nas string, same bool) []string {
	var peers []string
	for _, n := range p.model.nases {
		if n.name != p.nas && n.settled() && (n.client() == p.model.nas(nas).client()) == same {
			peers = append(peers, n.name)
		}
	}
	return peers
}

func (p *planner) peer(nas string, same bool) string {
	peers := p.peers(nas, same)
	return peers[p.rng.IntN(len(peers))]
}

// someNAS returns a NAS with a settled clock.
func (p *planner) someNAS() string {
	for {
		if n := p.model.nases[p.rng.IntN(len(p.model.nases))]; n.name != p.nas && n.settled() {
			return n.name
		}
	}
}

// anyNAS returns a NAS, with its clock possibly just set back if it did not restart lately:
// by such a clock a new session may have begun before the restart.
func (p *planner) anyNAS() string {
	for {
		n := p.model.nases[p.rng.IntN(len(p.model.nases))]
		last, restarted := p.model.restarted[n.name]
		if n.name != p.nas && (n.settled() || !restarted || p.round-last > 100) {
			return n.name
		}
	}
}

func listOps(ops []op) string {
	words := make([]string, len(ops))
	for i, o := range ops {
		words[i] = o.String()
	}
	return strings.Join(words, "; ")
}
