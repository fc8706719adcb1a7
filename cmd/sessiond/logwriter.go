package main

import (
	"io"
	"sync"
	"time"
)

const (
	// logPatience is the longest wait of a caller for its line to be written.
	logPatience = 50 * time.Millisecond
	// logRoom is the most octets of lines kept for a reader that takes none.
	logRoom = 1 << 20
)

// logWriter writes the lines of the log from a goroutine of its own. The reader of the log,
// such as a pager or a hanging service, may stop reading without ending, and callers hold
// locks while they log. So a caller waits for such a reader at most logPatience, and not at
// all while the reader is behind; lines beyond logRoom are left out, and counted.
type logWriter struct {
	to     io.Writer
	omit   func(lines int) // logs, to the same reader, the number of lines left out
	wake   chan struct{}   // holds a token when there are lines
	ending chan struct{}   // closed by close
	ended  chan struct{}   // closed once all lines are written after that

	mu      sync.Mutex
	lines   []byte        // lines to be written
	written chan struct{} // closed when they are
	omitted int
	behind  bool // the reader is slow: callers do not wait
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

// within waits until a channel is closed, and reports whether that was in time.
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

// writeSome writes the queued lines, and reports whether there were any.
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
	_, _ = w.to.Write(lines) // a failure cannot be logged
	if omitted > 0 {
		w.omit(omitted)
	}
	close(written)
	return true
}

// close waits, for a second at most, until all lines are written. It is called once, and no
// line is written after it.
func (w *logWriter) close() {
	close(w.ending)
	within(time.Second, w.ended)
}
