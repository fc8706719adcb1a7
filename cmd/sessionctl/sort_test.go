package main

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/sessiond/sessiond/internal/control/controltest"
)

// TestCellsInOrder: cells are sorted by what they mean. What is absent is last in both directions.
func TestCellsInOrder(t *testing.T) {
	t.Parallel()
	for _, want := range [][]string{
		{"0", "2", "10", "2000000", none},
		{"0 B", "512 B", "1.0 KiB", "999.9 KiB", "1.0 MiB", "7.0 GiB", none},
		{"0s", "45s", "1m1s", "2h4m", "1d2h", "30d", none},
		{"8h behind", "ok"},
		{"100.64.0.7", "100.64.0.30", "100.65.0.1", "198.51.100.0/28"},
		{"198.51.100.1:443", "198.51.100.1:1100", "198.51.100.30:80"},
		{"1024-1535", "1536-2047,4096-4607", "10240-10751"},
		{"0.1 %", "9.0 %", "10.2 %"}, {">= 0.000 %", ">= 0.015 %", "1.000 %"},
		{"alice", "Bob", "carol", none},
		{"2 ended", "10 ended"},
	} {
		for _, descending := range []bool{false, true} {
			shuffled, expected := slices.Clone(want), slices.Clone(want)
			rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
			if descending {
				present := expected[:len(expected):len(expected)]
				if expected[len(expected)-1] == none {
					present = expected[:len(expected)-1]
				}
				slices.Reverse(present)
			}
			rows := &sortedRows{descending: descending}
			for _, cell := range shuffled {
				if err := rows.add(sortedRow{cells: []string{cell}}); err != nil {
					t.Fatal(err)
				}
			}
			var got []string
			for _, row := range rows.inOrder() {
				got = append(got, row.cells[0])
			}
			if !slices.Equal(got, expected) {
				t.Errorf("%v, want %v", got, expected)
			}
		}
	}
}

// TestFirstRowsOfAMillion: with a limit only the rows that count are kept, and they are the first
// ones of the whole order. Without one too many rows are refused.
func TestFirstRowsOfAMillion(t *testing.T) {
	t.Parallel()
	const rows, limit = 1_000_000, 20
	r := rand.New(rand.NewPCG(5, 6))
	first := &sortedRows{limit: limit}
	var all []uint32
	for range rows {
		n := r.Uint32()
		all = append(all, n)
		if err := first.add(sortedRow{cells: []string{number(n)}}); err != nil {
			t.Fatal(err)
		}
		if len(first.rows) > limit {
			t.Fatalf("%d rows are kept", len(first.rows))
		}
	}
	slices.Sort(all)
	for i, row := range first.inOrder() {
		if row.cells[0] != number(all[i]) {
			t.Errorf("row %d is %s, want %d", i, row.cells[0], all[i])
		}
	}
	unlimited := &sortedRows{rows: make([]sortedRow, maxSorted)}
	if err := unlimited.add(sortedRow{cells: []string{"1"}}); err == nil || !strings.Contains(err.Error(), "--limit") {
		t.Errorf("%v", err)
	}
}

// TestSortAndLimit: both hold in all formats. A limit without an order asks for no more than
// it shows.
func TestSortAndLimit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		line  string
		lines int
		first string
		pages int64
	}{
		{"subscriber list --limit 10 -o json", 10, "100.64.0.0", 2}, // the second page is fetched ahead
		{"subscriber list --sort inside --limit 10 -o json", 10, "100.64.0.0", 3},
		{"subscriber list --sort -inside --limit 10 -o json", 10, "100.64.11.183", 3},
		{"subscriber list --sort -inside -o json", 3000, "100.64.11.183", 3},
		{"subscriber list --sort -inside --limit 10 -o csv", 11, "group", 3},
		{"subscriber list --sort -inside --limit 10", 11, "GROUP", 3},
	} {
		b := crowd(3000) // of this case alone: a page may be fetched ahead
		server := controltest.Serve(t, b, nil)
		r := ctl(t, server.Address, "", strings.Fields(c.line)...)
		head, _, _ := strings.Cut(r.stdout, "\n")
		if n := strings.Count(r.stdout, "\n"); r.code != exitDone || n != c.lines || !strings.Contains(head, c.first) || b.Pages.Load() > c.pages {
			t.Errorf("%s: exit %d, %d lines in %d pages, the first %s %s", c.line, r.code, n, b.Pages.Load(), head, r.stderr)
		}
	}
}

// crowd returns a backend with this many subscribers.
func crowd(n int) *controltest.Backend {
	b := controltest.Scene()
	sub := b.Online[1]
	b.Online = nil
	for i := range n {
		sub.Inside = netip.AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)})
		b.Online = append(b.Online, sub)
	}
	return b
}

// FuzzSortKey: keys have one order, whatever cells say.
func FuzzSortKey(f *testing.F) {
	f.Add("1d2h", "4.8 MiB", "100.64.0.7")
	f.Add("NaN", "Inf", "-")
	f.Add("1024-1535", "0x1p-2", "2001:db8::/64")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		x, y, z := keyOf(a), keyOf(b), keyOf(c)
		if x.compare(x) != 0 || x.compare(y) != -y.compare(x) {
			t.Errorf("%q and %q: %d and %d", a, b, x.compare(y), y.compare(x))
		}
		if x.compare(y) <= 0 && y.compare(z) <= 0 && x.compare(z) > 0 {
			t.Errorf("%q, %q, %q have no order", a, b, c)
		}
	})
}
