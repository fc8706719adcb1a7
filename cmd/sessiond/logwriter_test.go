package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"
)

// stalling is a reader of a log that takes nothing until goOn is closed.
type stalling struct {
	goOn chan struct{}

	mu   sync.Mutex
	text strings.Builder
}

func (s *stalling) Write(p []byte) (int, error) {
	<-s.goOn
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *stalling) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// TestLogOfAReaderThatStalls_I10: callers go on, memory is bounded, and a reader that takes
// lines again gets the kept ones, in order, and the number of those left out.
func TestLogOfAReaderThatStalls_I10(t *testing.T) {
	t.Parallel()
	reader := &stalling{goOn: make(chan struct{})}
	w := newLogWriter(reader, func(lines int) { fmt.Fprintln(reader, "omitted", lines) })
	const lines = 2 * logRoom / 64
	began := time.Now()
	for i := range lines {
		fmt.Fprintf(w, "%063d\n", i)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("%d lines took %v", lines, took)
	}
	w.mu.Lock()
	if len(w.lines) > logRoom {
		t.Errorf("%d octets wait", len(w.lines))
	}
	w.mu.Unlock()
	close(reader.goOn)
	fmt.Fprintln(w, "again")
	w.close()
	got := strings.Split(strings.TrimSpace(reader.String()), "\n")
	next, omitted := 0, 0
	for _, line := range got {
		if n := 0; strings.HasPrefix(line, "omitted") {
			_, _ = fmt.Sscanf(line, "omitted %d", &n)
			omitted += n
		} else if line == fmt.Sprintf("%063d", next) {
			next++
		}
	}
	if next+omitted != lines && next+omitted != lines+1 { // the last may have found no room
		t.Errorf("%d lines came in order, %d are said to be left out, of %d", next, omitted, lines)
	}
}

// TestLogIsWrittenAtOnce: of a reader that takes them lines are there when they were said.
func TestLogIsWrittenAtOnce(t *testing.T) {
	t.Parallel()
	r, out := io.Pipe()
	w := newLogWriter(out, func(int) {})
	go fmt.Fprintln(w, "said")
	line := make([]byte, 5)
	if _, err := io.ReadFull(r, line); err != nil || string(line) != "said\n" {
		t.Errorf("%q, %v", line, err)
	}
	w.close()
}
