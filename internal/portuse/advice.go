package portuse

import (
	"fmt"
	"math"
	"time"
)

// Observation is what is known of the port use of one group.
type Observation struct {
	Since, Until time.Time
	Bindings     int    // observed: live now, and ended since
	Peaks        Counts // of these bindings by the largest number of ports at a time, of the protocol with the most
	Full         int    // of these bindings, those that used as many ports as their blocks have, or more
	BlockSize    int    // at present
	Live         int    // live bindings now
}

// Size is the outcome of one block size.
type Size struct {
	BlockSize   int     // ports
	Overflowed  int     // observed bindings that used more ports
	Share       float64 // of the observed bindings: Overflowed / Bindings
	Subscribers int     // for how many the pools have a block of that size
	LowerBound  bool    // more may have overflowed: see Advise
}

// Advice is the outcome of all block sizes, and the size to take.
type Advice struct {
	Sizes       []Size
	Recommended int      // the block size to take; 0 for none, which Notes explain
	Notes       []string // about what limits the advice
}

// smallest and largest block size that Advise considers. Below the smallest one, a single web
// page takes a subscriber's ports.
const smallest, largest = 64, 1 << 15

// fewDays is the time that an observation should have lasted: a week has days of each kind.
const fewDays = 7 * 24 * time.Hour

// Advise returns, for each block size that the pools can be cut into, the share of the
// observed bindings that used more ports. It recommends the smallest size whose share is at
// most the target. capacity returns the number of blocks of a size that the pools have.
//
// Numbers above the present block size are lower bounds: beyond that size the kernel
// lets mappings to different remote hosts share a port, and refuses flows for which there is none.
func Advise(o *Observation, target float64, capacity func(blockSize int) int) Advice {
	var a Advice
	if o.Bindings == 0 {
		a.Notes = append(a.Notes, "no binding was observed yet: there is nothing to advise from")
	}
	for size := smallest; size <= largest; size *= 2 {
		blocks := capacity(size)
		if blocks == 0 {
			continue
		}
		s := Size{BlockSize: size, Subscribers: blocks, LowerBound: size >= o.BlockSize && o.Full > 0}
		if o.Bindings > 0 {
			s.Overflowed = o.Peaks.Above(size)
			s.Share = float64(s.Overflowed) / float64(o.Bindings)
			if a.Recommended == 0 && s.Share <= target {
				a.Recommended = size
				a.limits(o, &s, target)
			}
		}
		a.Sizes = append(a.Sizes, s)
	}
	if o.Bindings > 0 && a.Recommended == 0 {
		a.Notes = append(a.Notes, "no block size meets the target: more outside addresses would not help, a higher target or more blocks for each subscriber would")
	}
	return a
}

// limits notes the reasons against the recommended size.
func (a *Advice) limits(o *Observation, s *Size, target float64) {
	if lasted := o.Until.Sub(o.Since); lasted < fewDays {
		a.Notes = append(a.Notes, fmt.Sprintf("observed for %v only: use differs by hour and weekday, so a week is a fair time", lasted.Round(time.Second)))
	}
	// Without one overflow among n bindings, the share is below 3/n at 95 % confidence.
	if need := math.Ceil(3 / target); target > 0 && float64(o.Bindings) < need {
		a.Notes = append(a.Notes, fmt.Sprintf("%d bindings are few for a target of %g %%: %.0f without an overflow would prove it (rule of three, 95 %% confidence)", o.Bindings, 100*target, need))
	}
	if s.LowerBound {
		a.Notes = append(a.Notes, fmt.Sprintf("%d bindings filled their block: flows that the kernel refused them are not counted, so larger sizes may overflow more often than shown (insert_failed of conntrack -S counts refused flows of everybody)", o.Full))
	}
	if s.Subscribers < o.Live {
		a.Notes = append(a.Notes, fmt.Sprintf("the pools hold %d subscribers at that size, and %d have a block now: add outside addresses first", s.Subscribers, o.Live))
	}
}
