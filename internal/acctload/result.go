package acctload

import "time"

// BadReplies counts invalid replies, by cause.
type BadReplies struct {
	Malformed     uint64 // no RADIUS packet
	Code          uint64 // no Accounting-Response
	Authenticator uint64 // Response Authenticator wrong, or matching no request
}

// Total is the sum of all causes.
func (b BadReplies) Total() uint64 { return b.Malformed + b.Code + b.Authenticator }

// A Result holds the measurements of a run. Requests count if they became due
// after the warm-up and within the duration; bad and late replies count always.
type Result struct {
	Duration        time.Duration // of the measurement
	Requests        uint64        // sent at least once
	Answered        uint64        // of these
	Lost            uint64        // of these: unanswered after the last transmission
	Unsent          uint64        // due, but without a free identifier or subscriber until the end; open loop only
	Retransmissions uint64        // transmissions after a request's first
	Late            uint64        // valid replies to requests already answered or lost
	Refused         uint64        // ICMP errors: the port is closed
	Replies         uint64        // valid ones during the measurement, also to requests from before it
	Bad             BadReplies
	Rate            float64 // Replies per second

	Latency Histogram           // of the answered: from due to reply
	Kinds   map[Kind]*Histogram // the same by kind of request
}

// Clean reports whether every request was sent and answered, and no bad reply
// came.
func (r *Result) Clean() bool {
	return r.Answered > 0 && r.Lost == 0 && r.Unsent == 0 && r.Bad.Total() == 0
}

// A tally holds the counts of one lane while it runs.
type tally struct {
	Result
	givenUp uint64 // requests, with any due time
	kinds   [kinds]*Histogram
	began   time.Duration // start of the measurement
	ends    time.Duration
}

func (t *tally) measures(at time.Duration) bool { return at >= t.began && at < t.ends }

func (t *tally) sent(due time.Duration) {
	if t.measures(due) {
		t.Requests++
	}
}

func (t *tally) answered(x *exchange, now time.Duration) {
	if t.measures(now) {
		t.Replies++
	}
	if !t.measures(x.due) {
		return
	}
	t.Answered++
	if t.kinds[x.kind] == nil {
		t.kinds[x.kind] = &Histogram{}
	}
	t.kinds[x.kind].Record(now - x.due)
}

func (t *tally) lost(x *exchange) {
	if t.measures(x.due) {
		t.Lost++
	}
}

func (t *tally) retransmitted(x *exchange) {
	if t.measures(x.due) {
		t.Retransmissions++
	}
}

func (t *tally) found(f finding) {
	switch f {
	case late:
		t.Late++
	case malformed:
		t.Bad.Malformed++
	case wrongCode:
		t.Bad.Code++
	case forged:
		t.Bad.Authenticator++
	}
}

// merge sums up the lanes of a run.
func merge(tallies []*tally) *Result {
	sum := &Result{Kinds: make(map[Kind]*Histogram)}
	for _, t := range tallies {
		sum.addCounts(&t.Result)
		sum.Duration = max(sum.Duration, t.ends-t.began)
		for kind, h := range t.kinds {
			sum.addLatencies(Kind(kind), h)
		}
	}
	if sum.Duration > 0 {
		sum.Rate = float64(sum.Replies) / sum.Duration.Seconds()
	}
	return sum
}

func (r *Result) addCounts(other *Result) {
	r.Requests += other.Requests
	r.Answered += other.Answered
	r.Lost += other.Lost
	r.Unsent += other.Unsent
	r.Retransmissions += other.Retransmissions
	r.Late += other.Late
	r.Refused += other.Refused
	r.Replies += other.Replies
	r.Bad.Malformed += other.Bad.Malformed
	r.Bad.Code += other.Bad.Code
	r.Bad.Authenticator += other.Bad.Authenticator
}

func (r *Result) addLatencies(kind Kind, h *Histogram) {
	if h == nil {
		return
	}
	if r.Kinds[kind] == nil {
		r.Kinds[kind] = &Histogram{}
	}
	r.Kinds[kind].Add(h)
	r.Latency.Add(h)
}
