package doctor

import (
	"fmt"
	"strings"
)

// Text returns the findings as lines for people, and how many there are. checks is the number of
// checks that were made.
func Text(findings []Finding, checks int) string {
	var b strings.Builder
	must := 0
	for _, f := range findings {
		if f.Severity == Must {
			must++
		}
		fmt.Fprintf(&b, "%-6s  %s: %s\n", strings.ToUpper(string(f.Severity)), f.Check, f.Found)
		for _, part := range []struct{ name, text string }{{"why", f.Why}, {"mend", f.Command}, {"note", f.Note}} {
			if part.text != "" {
				fmt.Fprintf(&b, "        %-4s  %s\n", part.name, part.text)
			}
		}
		b.WriteByte('\n')
	}
	if len(findings) == 0 {
		fmt.Fprintf(&b, "%d checks found nothing to mend\n", checks)
		return b.String()
	}
	fmt.Fprintf(&b, "%d checks: %d to be mended, %d should be\n", checks, must, len(findings)-must)
	return b.String()
}
