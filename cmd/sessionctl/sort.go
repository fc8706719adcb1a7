package main

import (
	"cmp"
	"container/heap"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// maxSorted is the number of rows that --sort keeps without --limit: about 60 MB.
const maxSorted = 200_000

// rowOrder is what a person wishes for the rows of a list.
type rowOrder struct {
	by    string // --sort, a title as columnName writes it, with "-" in front for the largest first
	limit int    // --limit; 0: all
}

// columnName is a title as it is written on the command line.
func columnName(title string) string {
	return strings.ToLower(strings.ReplaceAll(title, " ", "-"))
}

// column returns the column to sort by; -1 if the list does not have it.
func (o rowOrder) column(header []string) int {
	name := strings.ToLower(strings.TrimPrefix(o.by, "-"))
	return slices.IndexFunc(header, func(title string) bool { return columnName(title) == name })
}

// listFlags adds the flags of all lists to a command.
func (a *app) listFlags(c *cobra.Command, header []string) {
	var names []string
	for _, title := range header {
		names = append(names, columnName(title))
	}
	c.Flags().StringVar(&a.order.by, "sort", "", "sort by this `column`; -column: the largest first")
	c.Flags().IntVar(&a.order.limit, "limit", 0, "only the first `rows`")
	register(c, "sort", func(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		words := names
		if strings.HasPrefix(typed, "-") {
			words = slices.Clone(names)
			for i := range words {
				words[i] = "-" + words[i]
			}
		}
		return words, cobra.ShellCompDirectiveNoFileComp
	})
	complete(c, "limit")
	c.PreRunE = func(*cobra.Command, []string) error {
		if a.order.by != "" && a.order.column(header) < 0 {
			return usagef("--sort: there is no column %q; there are %s", a.order.by, strings.Join(names, ", "))
		}
		if a.order.limit < 0 {
			return usagef("--limit must not be negative")
		}
		return nil
	}
	a.watchFlag(c)
}

// sortedRow is a row that waits for its place.
type sortedRow struct {
	cells []string
	text  []byte // for programs, in the place of the cells
	key   sortKey
	place int // of equal rows
}

// sortedRows are the rows of a list so far, or the first ones of them in a heap with the last of
// these at its root.
type sortedRows struct {
	column     int
	descending bool
	limit      int // 0: none
	seen       int
	rows       []sortedRow
}

func (o rowOrder) rows(header []string) *sortedRows {
	return &sortedRows{column: o.column(header), descending: strings.HasPrefix(o.by, "-"), limit: o.limit}
}

func (s *sortedRows) add(row sortedRow) error {
	row.key, row.place = keyOf(row.cells[s.column]), s.seen
	s.seen++
	if row.text != nil {
		row.cells = nil
	}
	switch {
	case s.limit == 0 && len(s.rows) == maxSorted:
		return fmt.Errorf("--sort: more than %d rows; take the first ones with --limit, or fewer with a filter", maxSorted)
	case s.limit == 0:
		s.rows = append(s.rows, row)
	case len(s.rows) < s.limit:
		heap.Push(s, row)
	case s.compare(row, s.rows[0]) < 0:
		s.rows[0] = row
		heap.Fix(s, 0)
	}
	return nil
}

// inOrder returns the rows in their order.
func (s *sortedRows) inOrder() []sortedRow {
	slices.SortFunc(s.rows, s.compare)
	return s.rows
}

func (s *sortedRows) compare(a, b sortedRow) int {
	order := a.key.compare(b.key)
	if s.descending && a.key.kind != keyNone && b.key.kind != keyNone {
		order = -order
	}
	return cmp.Or(order, cmp.Compare(a.place, b.place))
}

// Len, Less, Swap, Push and Pop implement heap.Interface.
func (s *sortedRows) Len() int           { return len(s.rows) }
func (s *sortedRows) Less(i, j int) bool { return s.compare(s.rows[i], s.rows[j]) > 0 }
func (s *sortedRows) Swap(i, j int)      { s.rows[i], s.rows[j] = s.rows[j], s.rows[i] }
func (s *sortedRows) Push(row any)       { s.rows = append(s.rows, row.(sortedRow)) }
func (s *sortedRows) Pop() any {
	last := s.rows[len(s.rows)-1]
	s.rows = s.rows[:len(s.rows)-1]
	return last
}

// The kinds of values, in their order. What is absent is last in both directions.
const (
	keyNumber = iota
	keyAddress
	keyText
	keyNone
)

// sortKey is the meaning of a cell: rows are sorted by what they show, whatever the list.
type sortKey struct {
	kind   int
	number float64 // with its unit
	addr   netip.AddrPort
	text   string // the cell
}

func (k sortKey) compare(other sortKey) int {
	return cmp.Or(
		cmp.Compare(k.kind, other.kind),
		cmp.Compare(k.number, other.number),
		k.addr.Compare(other.addr),
		strings.Compare(k.text, other.text),
	)
}

func keyOf(cell string) sortKey {
	if cell == none || cell == "" {
		return sortKey{kind: keyNone}
	}
	if a, ok := addressOf(cell); ok {
		return sortKey{kind: keyAddress, addr: a}
	}
	if n, ok := quantity(cell); ok {
		return sortKey{number: n, text: cell}
	}
	return sortKey{kind: keyText, text: strings.ToLower(cell)}
}

// addressOf reads an address, one with a port, or a prefix.
func addressOf(cell string) (netip.AddrPort, bool) {
	if a, err := netip.ParseAddr(cell); err == nil {
		return netip.AddrPortFrom(a, 0), true
	}
	if a, err := netip.ParseAddrPort(cell); err == nil {
		return a, true
	}
	if p, err := netip.ParsePrefix(cell); err == nil {
		return netip.AddrPortFrom(p.Addr(), uint16(p.Bits())), true
	}
	return netip.AddrPort{}, false
}

var unitsOf = map[string]float64{
	"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40, "PiB": 1 << 50, "EiB": 1 << 60,
}

// quantity reads the numbers of tables: "12", "4.8 MiB", "1d2h", ">= 0.015 %", "2 ended", "8h behind",
// and the first one of "1024-1535".
func quantity(cell string) (float64, bool) {
	first, rest, _ := strings.Cut(strings.TrimPrefix(cell, ">= "), " ")
	sign := 1.0
	if strings.HasPrefix(rest, "behind") {
		sign = -1
	}
	if n, err := strconv.ParseFloat(first, 64); err == nil {
		if unit, ok := unitsOf[rest]; ok {
			n *= unit
		}
		return n, true
	}
	if d, ok := spanOf(first); ok {
		return sign * d.Seconds(), true
	}
	head, _, ranged := strings.Cut(first, "-")
	if n, err := strconv.ParseUint(head, 10, 16); ranged && err == nil {
		return float64(n), true
	}
	return 0, false
}

// spanOf is the reverse of span.
func spanOf(text string) (time.Duration, bool) {
	days, rest, found := strings.Cut(text, "d")
	if !found {
		days, rest = "0", text
	}
	n, err := strconv.ParseUint(days, 10, 16)
	if err != nil {
		return 0, false
	}
	d := time.Duration(0)
	if rest != "" {
		if d, err = time.ParseDuration(rest); err != nil {
			return 0, false
		}
	}
	return d + time.Duration(n)*24*time.Hour, true
}
