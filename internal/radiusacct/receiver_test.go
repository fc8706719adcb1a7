package radiusacct

import (
	"testing"
	"time"
)

func TestModeration(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	one, other := &clientState{}, &clientState{}
	var m coalescer
	// read notes n datagrams every millisecond, several times, and returns the last pause.
	read := func(p *clientState, sound bool, times, n int) (pause time.Duration) {
		for range times {
			now = now.Add(time.Millisecond)
			for range n {
				m.note(p, sound, now)
			}
			pause = m.pause(n, now)
		}
		return pause
	}
	for _, step := range []struct {
		what     string
		peer     *clientState
		sound    bool
		times, n int
		want     time.Duration
	}{
		{"the first", one, true, 1, 1, 0},
		{"a burst", one, true, 5, receiveBatch - 1, 0},
		{"little", one, true, 1100, 4, 0},
		{"much", one, true, 50, 10, gatherTime},
		{"more than is read at once", one, true, 1, receiveBatch, 0},
		{"still much", one, true, 1, 10, gatherTime},
		{"little again", one, true, 30, 1, 0},
		{"much again", one, true, 30, 20, gatherTime},
		{"something else of the same", one, false, 1, 1, 0},
		{"soon after it", one, true, 900, 20, 0},
		{"long after it", one, true, 200, 20, gatherTime},
		{"of another", other, true, 1, 1, 0},
		{"beside another", one, true, 900, 20, 0},
		{"alone again", one, true, 200, 20, gatherTime},
		{"of a stranger", nil, false, 1, 1, 0},
		{"beside a stranger", one, true, 900, 20, 0},
		{"a flood of strangers", nil, false, 1500, 50, 0},
	} {
		if got := read(step.peer, step.sound, step.times, step.n); got != step.want {
			t.Errorf("%s: pause %v, want %v", step.what, got, step.want)
		}
	}
}
