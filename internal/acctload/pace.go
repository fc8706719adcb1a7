package acctload

import (
	"math"
	"math/rand/v2"
	"time"
)

// A pace tells when the next request is due. It is not safe for concurrent use.
type pace interface {
	// due returns the due time of the next request, which may lie in the past.
	due(now time.Duration, outstanding int) time.Duration
	// took is called when the due request was sent.
	took()
}

// never is a time beyond every run.
const never = time.Duration(math.MaxInt64)

// closedLoop keeps a number of requests outstanding.
type closedLoop struct{ concurrency int }

func (c closedLoop) due(now time.Duration, outstanding int) time.Duration {
	if outstanding >= c.concurrency {
		return never
	}
	return now
}

func (closedLoop) took() {}

// openLoop keeps to a timetable, independently of the replies.
type openLoop struct {
	next   time.Duration
	mean   float64 // distance in nanoseconds
	random *rand.Rand
	even   bool
}

func (o *openLoop) due(time.Duration, int) time.Duration { return o.next }

func (o *openLoop) took() {
	distance := o.mean
	if !o.even {
		distance *= o.random.ExpFloat64()
	}
	o.next += time.Duration(distance)
}

// paceOf returns lane i's share of the pace, from a time on. Several Poisson
// processes together are one; even timetables interleave.
func paceOf(o *Options, i int, from time.Duration, random *rand.Rand) pace {
	if o.Concurrency > 0 {
		return closedLoop{concurrencyOf(o.Concurrency, i, o.Sockets)}
	}
	p := &openLoop{next: from, mean: float64(time.Second) * float64(o.Sockets) / o.Rate, random: random, even: o.Even}
	if o.Even {
		p.next += time.Duration(p.mean * float64(i) / float64(o.Sockets))
	} else {
		p.took()
	}
	return p
}

func concurrencyOf(total, i, n int) int { return total*(i+1)/n - total*i/n }
