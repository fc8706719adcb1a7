package scale

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// linear is the permitted growth of a cost per growth of the number of subscribers: 12
// times from 100,000 to 1,000,000.
const linear = 1.2

// A row of the table.
type row struct {
	cost string // its name in a result
	text string
	unit string

	linear bool              // the factor linear bounds its growth with the number
	limit  func(int) float64 // limit for a number of subscribers; nil for none
	none   bool              // any value but 0 is an error
}

func constant(limit float64) func(int) float64 { return func(int) float64 { return limit } }

func each(limit float64) func(int) float64 { return func(n int) float64 { return float64(n) * limit } }

// Limits of resident octets a subscriber: at rest, and at the peak of a phase.
const (
	mostAtRest = 1200
	mostAtPeak = 1.5 * mostAtRest
)

var rows = []row{
	{cost: "load", text: "everybody online by Starts", unit: "s"},
	{cost: "load, sessiond", text: "  processor time of sessiond", unit: "s"},
	{cost: "load, redis", text: "  processor time of Redis", unit: "s"},
	{cost: "kill", text: "ready after kill -9", unit: "s", linear: true},
	{cost: "kill, sessiond", text: "  processor time of sessiond", unit: "s"},
	{cost: "kill, redis", text: "  processor time of Redis", unit: "s"},
	{cost: "kill, to peer", text: "  over nft -f", unit: "x", limit: constant(1.5)},
	{cost: "kill, missing", text: "  elements missing then", none: true},
	{cost: "kill, changed", text: "  bindings changed", none: true},
	{cost: "reboot", text: "ready after a reboot", unit: "s", linear: true},
	{cost: "reboot, sessiond", text: "  processor time of sessiond", unit: "s"},
	{cost: "reboot, redis", text: "  processor time of Redis", unit: "s"},
	{cost: "reboot, to peer", text: "  over nft -f", unit: "x"},
	{cost: "reboot, missing", text: "  elements missing then", none: true},
	{cost: "reboot, changed", text: "  bindings changed", none: true},
	{cost: "peer", text: "nft -f of as many elements", unit: "s"},
	{cost: "reconcile", text: "reconcile --dry-run", unit: "s", linear: true},
	{cost: "reconcile, sessiond", text: "  processor time of sessiond", unit: "s"},
	{cost: "reconcile, redis", text: "  processor time of Redis", unit: "s"},
	{cost: "reconcile, differences", text: "  differences", none: true},
	{cost: "list", text: "subscriber list -o json", unit: "s", linear: true},
	{cost: "list, sessiond", text: "  processor time of sessiond", unit: "s"},
	{cost: "list, redis", text: "  processor time of Redis", unit: "s"},
	{cost: "page", text: "first page of subscribers", unit: "ms", limit: constant(50)},
	{cost: "page of bindings", text: "first page of bindings", unit: "ms", limit: constant(50)},
	{cost: "page of a user", text: "one subscriber by name", unit: "ms"},
	{cost: "off", text: "Accounting-Off to nothing left", unit: "s", linear: true, limit: each(40e-6)},
	{cost: "off, sessiond", text: "  processor time of sessiond", unit: "s"},
	{cost: "off, redis", text: "  processor time of Redis", unit: "s"},
	{cost: "off, held", text: "  held by the guard", none: true},
	{cost: "off, left", text: "  records left", none: true},
	{cost: "off, bound", text: "  bindings left", none: true},
	{cost: "rest, share of sessiond", text: "idle: sessiond", unit: "cores", limit: constant(0.05)},
	{cost: "rest, share of redis", text: "idle: redis-server", unit: "cores"},
	{cost: "rest again, share of sessiond", text: "idle after kill -9: sessiond", unit: "cores", limit: constant(0.05)},
	{cost: "rest again, share of redis", text: "idle after kill -9: redis-server", unit: "cores"},
	{cost: "rest, memory", text: "memory at rest", unit: "B/sub.", limit: constant(mostAtRest)},
	{cost: "rest again, memory", text: "memory at rest after kill -9", unit: "B/sub.", limit: constant(mostAtRest)},
	{cost: "load, peak", text: "peak while they come online", unit: "B/sub.", limit: constant(mostAtPeak)},
	{cost: "kill, peak", text: "peak of a start after kill -9", unit: "B/sub.", limit: constant(mostAtPeak)},
	{cost: "reboot, peak", text: "peak of a start after a reboot", unit: "B/sub.", limit: constant(mostAtPeak)},
	{cost: "reconcile, peak", text: "peak of reconcile", unit: "B/sub.", limit: constant(mostAtPeak)},
	{cost: "list, peak", text: "peak of list", unit: "B/sub.", limit: constant(mostAtPeak)},
	{cost: "off, peak", text: "peak of Accounting-Off", unit: "B/sub.", limit: constant(mostAtPeak)},
}

// tableOf prints sizes side by side. Growth is that from the first to the last, limits are
// those of the last; a share above 1 misses the limit.
func tableOf(results []*result) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-34s", "subscribers")
	for _, r := range results {
		fmt.Fprintf(&b, "%10d", r.n)
	}
	fmt.Fprintf(&b, " %-7s%8s%8s%10s%8s\n", "", "growth", "of it", "limit", "of it")
	for _, row := range rows {
		row.print(&b, results)
	}
	b.WriteString("\nRedis's longest pauses, and what it says took long\n")
	for _, p := range phases {
		for _, r := range results {
			if pause, ok := r.pauses[p.name]; ok {
				fmt.Fprintf(&b, "%-12s%10d  %s\n", p.name, r.n, pause)
			}
		}
	}
	for _, r := range results {
		for _, err := range r.failed {
			fmt.Fprintln(&b, "failed:", err)
		}
	}
	return b.String()
}

func (row *row) print(b *strings.Builder, results []*result) {
	fmt.Fprintf(b, "%-34s", row.text)
	for _, r := range results {
		fmt.Fprintf(b, "%10s", figure(r.costs, row.cost))
	}
	growth, ofGrowth := row.growth(results)
	limit, ofLimit := row.share(results[len(results)-1])
	fmt.Fprintf(b, " %-7s%8s%8s%10s%8s\n", row.unit, growth, ofGrowth, limit, ofLimit)
}

// growth returns the growth from the first size to the last, and its share of the permitted
// one.
func (row *row) growth(results []*result) (times, share string) {
	first, last := results[0], results[len(results)-1]
	from, to := first.costs[row.cost], last.costs[row.cost]
	if from == 0 || to == 0 || first.n == last.n {
		return "", ""
	}
	if row.linear {
		share = fmt.Sprintf("%.2fx", to/from/(linear*float64(last.n)/float64(first.n)))
	}
	return fmt.Sprintf("%.1fx", to/from), share
}

// share returns the limit, and the share of it that is used.
func (row *row) share(r *result) (limit, share string) {
	value, ok := r.costs[row.cost]
	switch {
	case row.none:
		return "0", ""
	case row.limit == nil:
		return "", ""
	case ok:
		share = fmt.Sprintf("%.2fx", value/row.limit(r.n))
	}
	return digits(row.limit(r.n)), share
}

func figure(costs map[string]float64, name string) string {
	if value, ok := costs[name]; ok {
		return digits(value)
	}
	return "failed"
}

// digits formats three digits, or all digits before the point.
func digits(value float64) string {
	if value == 0 || value >= 100 {
		return fmt.Sprintf("%.0f", value)
	}
	return fmt.Sprintf("%.3g", value)
}

func TestTable(t *testing.T) {
	small := &result{n: 1000, costs: map[string]float64{"kill": 2, "off": 0.02, "off, held": 0}}
	large := &result{
		n: 10_000, costs: map[string]float64{"kill": 48, "off": 0.2, "off, held": 3},
		pauses: map[string]pause{"kill": {longest: 12 * time.Millisecond, command: "11.0 ms HGETALL x", events: "7 ms fork"}},
	}
	_ = large.fail("list", fmt.Errorf("too slow\n%s", "a whole log"))
	text := tableOf([]*result{small, large})
	lines := map[string]bool{}
	for line := range strings.Lines(text) {
		lines[strings.Join(strings.Fields(line), " ")] = true
	}
	for _, want := range []string{
		"subscribers 1000 10000 growth of it limit of it",
		"ready after kill -9 2 48 s 24.0x 2.00x",
		"Accounting-Off to nothing left 0.02 0.2 s 10.0x 0.83x 0.4 0.50x",
		"held by the guard 0 3 0",
		"subscriber list -o json failed failed s",
		"first page of subscribers failed failed ms 50",
		"kill 10000 12.0 ms; 11.0 ms HGETALL x; 7 ms fork",
		"failed: 10000 subscribers: list: too slow",
	} {
		if !lines[want] {
			t.Errorf("no line %q", want)
		}
	}
	if t.Failed() {
		t.Log("\n" + text)
	}
	if faults := large.faults(); len(faults) != 2 || !strings.Contains(faults[1].Error(), "held by the guard: 3") {
		t.Errorf("faults are %v", faults)
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string][]int{
		"":             {100_000, 1_000_000},
		" 20000 30000": {20_000, 30_000},
		"1":            nil,
		"2000000":      nil,
		"many":         nil,
	} {
		got, err := sizesOf(text)
		if !slices.Equal(got, want) || (err == nil) != (want != nil) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}
