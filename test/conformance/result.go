package conformance

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Verdict is what a run shows of an item.
type Verdict string

// The verdicts.
const (
	Held      Verdict = "held"      // all its tests passed
	Deviates  Verdict = "deviates"  // on purpose; its tests, if any, hold what is done instead
	Open      Verdict = "open"      // not built
	Failed    Verdict = "FAILED"    // a test failed
	NotTested Verdict = "NOT SHOWN" // no test ran: there is none, or all were skipped
)

// Result is an item with what a run shows of it.
type Result struct {
	Item
	Verdict Verdict
	Tests   []string // functions that passed or failed: "lsn.TestX_NAT07"
	Failing []string // tests and cases that failed
	Again   []string // functions that failed, and passed when they ran again alone
	Skipped int      // tests and cases that did not run
}

// Bad reports whether the item is neither held nor excused.
func (r *Result) Bad() bool { return r.Verdict == Failed || r.Verdict == NotTested }

// Text returns the verdict with its reason, on one line.
func (r *Result) Text() string {
	text := string(r.Verdict)
	switch {
	case r.Deviation != "" && r.Verdict != Failed:
		text += ": " + r.Deviation
	case len(r.Failing) > 0:
		text += ": " + strings.Join(r.Failing, ", ")
	}
	if len(r.Again) > 0 {
		text += " (when run again: " + strings.Join(r.Again, ", ") + ")"
	}
	if r.Skipped > 0 {
		text += fmt.Sprintf(" (%d skipped)", r.Skipped)
	}
	return text
}

// Results tells what the outcomes show of each item.
func Results(items []Item, outcomes []Outcome) []Result {
	byID := map[string][]Outcome{}
	for _, o := range outcomes {
		for _, id := range o.ids() {
			byID[id] = append(byID[id], o)
		}
	}
	results := make([]Result, len(items))
	for i, item := range items {
		results[i] = resultOf(item, byID[item.ID])
	}
	return results
}

func resultOf(item Item, outcomes []Outcome) Result {
	r := Result{Item: item}
	ran, again := map[string]bool{}, map[string]bool{}
	for _, o := range outcomes {
		if o.Action == "skip" {
			r.Skipped++
			continue
		}
		ran[o.Package+"."+o.function()] = true
		if o.Again && o.Action == "pass" {
			again[o.Package+"."+o.function()] = true
		}
		if o.Action == "fail" {
			r.Failing = append(r.Failing, o.Package+"."+o.Name)
		}
	}
	r.Tests, r.Again = slices.Sorted(maps.Keys(ran)), slices.Sorted(maps.Keys(again))
	switch {
	case len(r.Failing) > 0:
		r.Verdict = Failed
	case item.Open:
		r.Verdict = Open
	case item.Deviation != "":
		r.Verdict = Deviates
	case len(r.Tests) > 0:
		r.Verdict = Held
	default:
		r.Verdict = NotTested
	}
	return r
}
