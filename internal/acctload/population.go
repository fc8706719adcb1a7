package acctload

import "github.com/sessiond/sessiond/internal/addrrange"

// A subscriber of one lane. Its number and address follow from its index.
type subscriber struct {
	session uint64 // Acct-Session-Id of the latest session
	since   uint32 // start of that session, seconds since 1970
	updates uint32 // requests of that session after the Start
	online  bool   // as far as the server has answered
	busy    bool   // one of its requests is outstanding
}

// A population holds the subscribers of one lane, with session identifiers
// unique among lanes and runs.
type population struct {
	subscribers []subscriber
	number      uint32 // of the first subscriber
	address     uint32 // of the first subscriber
	session     uint64 // the next session's identifier
	step        uint64 // from one session to the next
}

// shareOf returns lane i's part of all subscribers among n lanes: first and
// count.
func shareOf(subscribers, i, n int) (first, count int) {
	first = subscribers * i / n
	return first, subscribers*(i+1)/n - first
}

// newPopulation returns the share of lane i. The run number makes session
// identifiers unique among runs.
func newPopulation(o *Options, i int, run uint32) *population {
	first, count := shareOf(o.Subscribers, i, o.Sockets)
	return &population{
		subscribers: make([]subscriber, count),
		number:      uint32(first),
		address:     addrrange.Number(o.Inside.Masked().Addr()) + uint32(first),
		session:     uint64(run)<<32 | uint64(i),
		step:        uint64(o.Sockets),
	}
}

func (p *population) newSession() uint64 {
	id := p.session
	p.session += p.step
	return id
}

// event returns the content of a request about subscriber i at a time, in
// seconds since 1970. A Start begins a new session.
func (p *population) event(kind Kind, i int, at uint32) event {
	if i < 0 {
		return event{kind: kind, session: p.newSession(), at: at}
	}
	s := &p.subscribers[i]
	s.busy = true
	if kind == KindStart {
		s.session, s.since, s.updates = p.newSession(), at, 0
	} else {
		s.updates++
	}
	return event{
		kind: kind, session: s.session, number: p.number + uint32(i), inside: p.address + uint32(i),
		at: at, lasted: at - s.since, octets: s.updates * 1_000_003,
	}
}

// settle notes the end of a request of subscriber i: answered, or lost, in
// which case the server may or may not have received it.
func (p *population) settle(kind Kind, i int, answered bool) {
	if i < 0 {
		return
	}
	s := &p.subscribers[i]
	s.busy = false
	if answered {
		s.online = kind != KindStop
	}
}
