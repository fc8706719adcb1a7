package conformance

import (
	"fmt"
	"strings"
)

// Document returns the results as a Markdown page. On names the kernel and the programs of
// the run.
func Document(on string, results []Result) string {
	var page strings.Builder
	fmt.Fprintf(&page, `# Conformance

`+"`make conformance`"+` runs the tests named here and writes this page: what RFCs and the field ask
of sessiond, and what the tests show. Level M is a must, S a should, L for later. An item is
held if all tests that name it passed; a test that failed ran again, without others beside it,
and is named if it passed then. The checklist is
[test/conformance/checklist.txt](../test/conformance/checklist.txt).

Run on %s.
`, on)
	part := ""
	for i := range results {
		r := &results[i]
		if p, _, _ := strings.Cut(r.ID, "-"); p != part {
			part = p
			fmt.Fprintf(&page, "\n## %s: %s\n\n| item | level | requirement | result | tests |\n|---|---|---|---|---|\n", p, partNames[p])
		}
		tests := "-"
		if len(r.Tests) > 0 {
			tests = "`" + strings.Join(r.Tests, "`, `") + "`"
		}
		fmt.Fprintf(&page, "| %s | %s | %s | %s | %s |\n", r.ID, r.Level, cell(r.Requirement), cell(r.Text()), tests)
	}
	return page.String()
}

var partNames = map[string]string{
	"ACCT": "RADIUS accounting packets",
	"SES":  "sessions and NAS restarts",
	"RSEC": "RADIUS over TLS",
	"DEL":  "removal of NAT state",
	"NAT":  "address translation",
	"LOG":  "the log of a NAT",
	"PCP":  "ports that subscribers ask for",
}

// cell returns a text as it stands in a table.
func cell(text string) string { return strings.ReplaceAll(text, "|", `\|`) }
