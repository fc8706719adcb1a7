package main

import (
	"fmt"
	"io"
	"sync"
	"time"
)

const (
	progressAfter = time.Second            // of work, before it is shown
	progressEvery = 500 * time.Millisecond // it is shown anew
	progressGap   = time.Second            // work that begins so soon after other work goes on
)

// progressLine shows on a terminal that long work goes on: in one line, which every other output
// replaces. A nil one shows nothing.
type progressLine struct {
	to     io.Writer // the terminal itself
	behind bool      // rows are printed on a terminal as they come, and show by themselves that it goes on
	now    func() time.Time

	lock  sync.Mutex
	works int // calls under way
	since time.Time
	ended time.Time
	rows  int
	total int // rows in the end; 0 if that is not known
	shown bool
	over  chan struct{}
	done  chan struct{}
}

// start shows the progress from now on, until stop.
func (p *progressLine) start() {
	if p == nil {
		return
	}
	p.over, p.done = make(chan struct{}), make(chan struct{})
	go func() {
		defer close(p.done)
		ticks := time.NewTicker(progressEvery)
		defer ticks.Stop()
		for {
			select {
			case <-p.over:
				return
			case <-ticks.C:
				p.show()
			}
		}
	}()
}

// stop ends the showing. Nothing of it is left on the terminal.
func (p *progressLine) stop() {
	if p == nil {
		return
	}
	close(p.over)
	<-p.done
	p.hide()
}

// begin says that work begins; the returned function, that it is over.
func (p *progressLine) begin() (end func()) {
	if p == nil {
		return func() {}
	}
	p.lock.Lock()
	defer p.lock.Unlock()
	if now := p.now(); p.works == 0 && now.Sub(p.ended) > progressGap {
		p.since = now
	}
	p.works++
	return func() {
		p.lock.Lock()
		defer p.lock.Unlock()
		p.works--
		p.ended = p.now()
	}
}

// count adds to the number of rows that have come.
func (p *progressLine) count(rows int) {
	if p == nil {
		return
	}
	p.lock.Lock()
	defer p.lock.Unlock()
	p.rows += rows
}

// reached says how many rows of how many have come; of 0, if that is not known.
func (p *progressLine) reached(rows, total int) {
	if p == nil {
		return
	}
	p.lock.Lock()
	defer p.lock.Unlock()
	p.rows, p.total = rows, total
}

func (p *progressLine) show() {
	p.lock.Lock()
	defer p.lock.Unlock()
	lasts := p.now().Sub(p.since)
	if p.works == 0 || lasts < progressAfter || p.behind && p.rows > 0 {
		return
	}
	text := "waiting for sessiond, " + span(lasts)
	switch {
	case p.rows > 0 && p.total > 0:
		text = fmt.Sprintf("%d of %d rows, %s", p.rows, p.total, span(lasts))
	case p.rows > 0:
		text = fmt.Sprintf("%d rows, %s", p.rows, span(lasts))
	}
	p.shown = true
	_, _ = fmt.Fprintf(p.to, "\r%s\x1b[K", text)
}

// hide takes the line away, so that something else can be printed in its place.
func (p *progressLine) hide() {
	if p == nil {
		return
	}
	p.lock.Lock()
	defer p.lock.Unlock()
	if p.shown {
		p.shown = false
		_, _ = fmt.Fprint(p.to, "\r\x1b[K")
	}
}
