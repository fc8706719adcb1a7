package main

import (
	"fmt"
	"io"
	"strings"
)

// show prints what happens and what was seen.
type show struct {
	out    io.Writer
	checks int
}

// chapter begins a part of the story.
func (s *show) chapter(title string) { fmt.Fprintf(s.out, "\n== %s\n", title) }

// does says what is done next.
func (s *show) does(format string, args ...any) {
	fmt.Fprintf(s.out, "\n-- "+format+"\n", args...)
}

// seen says what was checked and found to hold.
func (s *show) seen(format string, args ...any) {
	s.checks++
	fmt.Fprintf(s.out, "   ok  "+format+"\n", args...)
}

// quote prints lines of somebody else's output.
func (s *show) quote(text string) {
	for line := range strings.Lines(text) {
		fmt.Fprintf(s.out, "       | %s\n", strings.TrimRight(line, "\n"))
	}
}
