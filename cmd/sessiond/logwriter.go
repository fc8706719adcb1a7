package main

import (
	"io"
	"sync"
	"time"
)

const (
	// logPatience is how long who has something to say waits until it is written.
	logPatience = 50 * time.Millisecond
	// logRoom is how many octets of lines wait for a reader that takes none.
	logRoom = 1 << 20
)

// logWriter writes the lines of the log from a goroutine of its own. Who reads the log may
// stop without ending, as a pager or a service that hangs, and who has something to say has
// locks in hand. So nobody waits for such a reader for longer than logPatience, and while one
// is behind nobody waits at all; lines beyond logRoom are left out, and counted.
type logWriter struct {
	to     io.Writer
	omit   func(lines int) // says, to the same reader, how many lines were left out
	wake   chan struct{}   // holds a token when there are lines
	ending chan struct{}   // closed by close
	ended  chan struct{}   // closed once all is written then

	mu      sync.Mutex
	lines   []byte        // that wait to be written
	written chan struct{} // closed when they are
	omitted int
	behind  bool // the reader is: nobody waits
}

func newLogWriter(to io.Writer, omit func(lines int)) *logWriter {
	w := &logWriter{to: to, omit: omit, wake: make(chan struct{}, 1), ending: make(chan struct{}), ended: make(chan struct{}), written: make(chan struct{})}
	go w.run()
	return w
}

// Write implements io.Writer, for a line at a time. It never fails.
func (w *logWriter) Write(line []byte) (int, error) {
	w.mu.Lock()
	if len(w.lines)+len(line) > logRoom {
		w.omitted++
		w.mu.Unlock()
		return len(line), nil
	}
	w.lines = append(w.lines, line...)
	written, behind := w.written, w.behind
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
	if !behind && !within(logPatience, written) {
		w.mu.Lock()
		w.behind = true
		w.mu.Unlock()
	}
	return len(line), nil
}

// within waits until a channel is closed, and reports whether it was in time.
func within(patience time.Duration, done <-chan struct{}) bool {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

func (w *logWriter) run() {
	for {
		ending := false
		select {
		case <-w.wake:
		case <-w.ending:
			ending = true
		}
		for w.writeSome() {
		}
		if ending {
			close(w.ended)
			return
		}
	}
}

// writeSome writes what waits, and reports whether there was anything.
func (w *logWriter) writeSome() bool {
	w.mu.Lock()
	lines, written, omitted := w.lines, w.written, w.omitted
	if len(lines) == 0 && omitted == 0 {
		w.behind = false
		w.mu.Unlock()
		return false
	}
	w.lines, w.written, w.omitted = nil, make(chan struct{}), 0
	w.mu.Unlock()
	_, _ = w.to.Write(lines) // there is nowhere to say that it failed
	if omitted > 0 {
		w.omit(omitted)
	}
	close(written)
	return true
}

// close waits, for a second at most, until all is written. It is called once, and nothing
// is said after it.
func (w *logWriter) close() {
	close(w.ending)
	within(time.Second, w.ended)
}
