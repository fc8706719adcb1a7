package faults

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"
)

// holds watches the bindings stored in Redis and records every block that another
// subscriber got before its hold was over (NAT-30).
type holds struct {
	w    *world
	stop context.CancelFunc
	done chan struct{}

	mu     sync.Mutex
	last   map[string]lastHolder
	blind  bool
	behind bool // Redis may be behind: it hangs, or sessiond does
	broken []string
	counts receipts
	moves  int // number of blocks that changed hands
}

// A lastHolder is the last known holder of a block.
type lastHolder struct {
	storedBinding
	seen time.Time
}

const (
	watchEvery = 40 * time.Millisecond
	// clockGrain is the most by which rounded times in Redis may be off.
	clockGrain = 20 * time.Millisecond
)

func (w *world) watchHolds(ctx context.Context) *holds {
	ctx, stop := context.WithCancel(ctx)
	h := &holds{w: w, stop: stop, done: make(chan struct{}), last: map[string]lastHolder{}, counts: receipts{}}
	go h.run(ctx)
	return h
}

func (h *holds) run(ctx context.Context) {
	defer close(h.done)
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		once, cancel := context.WithTimeout(ctx, time.Second)
		began := time.Now()
		rows, err := h.w.lookStored(once)
		cancel()
		if err == nil { // else Redis is down
			h.take(rows, began)
		}
	}
}

func (h *holds) take(rows map[string]storedBinding, at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, row := range rows {
		h.counts.note(&row)
	}
	if h.blind {
		return
	}
	for block, now := range blocksOf(rows, at) {
		before, known := h.last[block]
		if known && before.Identity != "" && now.Identity != "" && before.Identity != now.Identity {
			h.moves++
			h.passed(block, before, now)
		}
		if now.Identity != "" || !known {
			h.last[block] = lastHolder{now, h.usedUntil(before, now, at)}
		}
	}
}

// blocksOf returns the rows of all blocks, by outside address and first port, each with the
// time at which that block was given: of those between the first and the newest it is not
// known, but was before the look.
func blocksOf(rows map[string]storedBinding, looked time.Time) map[string]storedBinding {
	all := maps.Clone(rows)
	for field, row := range rows {
		outside, _, _ := strings.Cut(field, ":")
		for i, more := range row.More {
			row.Allocated = looked
			if i == len(row.More)-1 {
				row.Allocated = row.Grown
			}
			all[fmt.Sprintf("%s:%d", outside, more[0])] = row
		}
	}
	return all
}

// usedUntil returns the latest time at which a block that Redis shows as in use is known to
// have been so. During a fault Redis may show that long after the block was released; until
// then only sessiond knows.
func (h *holds) usedUntil(before lastHolder, now storedBinding, looked time.Time) time.Time {
	switch {
	case !h.behind:
		return looked
	case before.Identity == now.Identity && before.seen.After(now.Allocated):
		return before.seen
	}
	return now.Allocated
}

// setBehind tells that a fault begins, or is over.
func (h *holds) setBehind(behind bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.behind = behind
}

// passed checks a block that has another holder than before. One that was last seen in use
// was released later than that.
func (h *holds) passed(block string, before lastHolder, now storedBinding) {
	free := before.seen
	if before.Held {
		free = before.Released
	}
	if fixedGroup.inside.Contains(now.Inside) {
		return // its block is no other subscriber's, and is proved to be without sessions
	}
	if free = free.Add(hold); now.Allocated.Add(clockGrain).Before(free) {
		h.broken = append(h.broken, fmt.Sprintf("block %s went from %s to %s at %v, before %v (NAT-30)",
			block, before.Identity, now.Identity, now.Allocated, free))
	}
}

// setBlind stops the watch, and starts it anew afterwards. A database that went back in
// time shows old bindings. And if only the kernel remembers, bindings have no holder until
// the next Start or Interim.
func (h *holds) setBlind(blind bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.blind = blind
	clear(h.last)
}

// violations returns the violations found.
func (h *holds) violations() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.broken
}

// takeReceipts returns the receipts seen since the last call.
func (h *holds) takeReceipts() receipts {
	h.mu.Lock()
	defer h.mu.Unlock()
	seen := h.counts
	h.counts = receipts{}
	return seen
}

func (h *holds) end() int {
	h.stop()
	<-h.done
	return h.moves
}
