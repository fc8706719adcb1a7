package main

import (
	"fmt"
	"io"
	"strings"
)

// show prints the steps and their evidence.
type show struct {
	out    io.Writer
	checks int
}

// chapter prints the heading of a part.
func (s *show) chapter(title string) { fmt.Fprintf(s.out, "\n== %s\n", title) }

// does prints the next step.
func (s *show) does(format string, args ...any) {
	fmt.Fprintf(s.out, "\n-- "+format+"\n", args...)
}

// seen prints a check that succeeded.
func (s *show) seen(format string, args ...any) {
	s.checks++
	fmt.Fprintf(s.out, "   ok  "+format+"\n", args...)
}

// quote prints the output of another program.
func (s *show) quote(text string) {
	for line := range strings.Lines(text) {
		fmt.Fprintf(s.out, "       | %s\n", strings.TrimRight(line, "\n"))
	}
}
