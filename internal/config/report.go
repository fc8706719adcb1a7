package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one error in a configuration.
type Problem struct {
	File string
	Line int    // from 1
	Key  string // path of the key, such as groups[0].hold; empty for the file as a whole
	Text string // the error, and advice
}

// String returns "FILE:LINE: KEY: TEXT".
func (p Problem) String() string {
	if p.Key == "" {
		return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Text)
	}
	return fmt.Sprintf("%s:%d: %s: %s", p.File, p.Line, p.Key, p.Text)
}

// Errors holds all errors in a configuration, by line.
type Errors []Problem

// Error returns one line for each problem.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, p := range e {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// report gathers problems and warnings while a file is read.
type report struct {
	file     string
	problems []Problem
	secrets  bool      // the file itself contains secrets
	private  []string  // the other files with secrets
	exposed  []Problem // files with secrets that every user can read
	doubts   []Problem
}

func (r *report) add(line int, key, text string) {
	r.problems = append(r.problems, Problem{r.file, line, key, text})
}

func byLine(a, b Problem) int { return cmp.Compare(a.Line, b.Line) }

func (r *report) errors() error {
	if len(r.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(r.problems, byLine)
	return Errors(r.problems)
}

func (r *report) warnings() []string {
	return texts(r.doubts)
}

// texts returns problems by line.
func texts(problems []Problem) []string {
	slices.SortStableFunc(problems, byLine)
	var lines []string
	for _, p := range problems {
		lines = append(lines, p.String())
	}
	return lines
}
