package doctor

import (
	"slices"
	"strings"
)

// Severity says whether a finding has to be mended.
type Severity string

// The severities.
const (
	Must   Severity = "must"   // subscribers lose service, or records are lost
	Should Severity = "should" // the machine serves, with a loss that the finding names
)

// A Finding is one thing that is not as sessiond needs it.
type Finding struct {
	Check    string   `json:"check"` // name of the check
	Severity Severity `json:"severity"`
	Found    string   `json:"found"`
	Why      string   `json:"why"`     // it matters
	Command  string   `json:"command"` // a line for a shell that mends it; "" where no single command does
	Note     string   `json:"note"`    // about the command, or the remedy where there is none; may be ""
}

// A Check looks at facts. It has no findings where its facts could not be read.
type Check struct {
	Name    string
	About   string // what it looks at, in a few words
	Examine func(*Facts) []Finding
}

// Checks returns all checks, in the order of their findings.
func Checks() []Check {
	return slices.Concat(unreadChecks, sysctlChecks, tableChecks, networkChecks, redisChecks, hostChecks)
}

// Examine returns the findings of all checks, those that must be mended first.
func Examine(f *Facts) []Finding { return examine(Checks(), f) }

// ExamineRedis returns the findings about Redis alone.
func ExamineRedis(servers []Redis) []Finding { return examine(redisChecks, &Facts{Redis: servers}) }

func examine(checks []Check, f *Facts) []Finding {
	var findings []Finding
	for _, c := range checks {
		for _, found := range c.Examine(f) {
			found.Check = c.Name
			findings = append(findings, found)
		}
	}
	slices.SortStableFunc(findings, func(a, b Finding) int { return strings.Compare(string(a.Severity), string(b.Severity)) })
	return findings
}

// Mends reports whether one of the findings must be mended.
func Mends(findings []Finding) bool {
	return slices.ContainsFunc(findings, func(f Finding) bool { return f.Severity == Must })
}

var unreadChecks = []Check{{"unread", "facts that could not be read", func(f *Facts) (found []Finding) {
	for _, u := range f.Unread {
		found = append(found, Finding{
			Severity: Should, Found: u.What + " could not be read: " + u.Err,
			Why:  "nothing is known about it",
			Note: "run it as root, on the machine of the daemon, with its configuration",
		})
	}
	return found
}}}
