package main

import (
	"bytes"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/control/controltest"
)

// at makes output that of a terminal of this size, without colours.
func at(p *printed, columns, rows int) {
	p.size = func() (int, int) { return columns, rows }
}

// ctlAt is ctl at a terminal.
func ctlAt(t *testing.T, address string, columns, rows int, coloured bool, arguments ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	a := sceneApp("", &stdout, &stderr)
	at(a.stdout, columns, rows)
	a.stdout.coloured = coloured
	code := a.run(t.Context(), append([]string{"--addr", address}, arguments...))
	return result{code, stdout.String(), stderr.String()}
}

// TestListsFitTheTerminal: at 80 columns no line of a list or of status is longer, and the columns
// that are left out are named; wide, and a pipe, have all.
func TestListsFitTheTerminal(t *testing.T) {
	t.Parallel()
	server := controltest.Serve(t, controltest.Scene(), nil)
	for line, must := range map[string]string{
		"subscriber list": "INSIDE USER OUTSIDE STATE SESSIONS",
		"binding list":    "INSIDE OUTSIDE PORTS STATE USER",
		"session list":    "INSIDE OUTSIDE REMOTE STATE",
		"mapping list":    "PROTOCOL OUTSIDE OWNER PORT STATE",
		"pool list":       "OUTSIDE BLOCKS USED HELD FREE",
		"removal list":    "KIND INSIDE REASON USER",
		"nas list":        "NAS SUBSCRIBERS CLOCK REFUSED",
		"drops --all":     "REASON DIRECTION PACKETS BYTES MEANING",
		"settings get":    "SETTING VALUE",
		"reconcile":       "KIND GROUP INSIDE MENDED WHAT",
	} {
		narrow := ctlAt(t, server.Address, 80, 24, false, strings.Fields(line)...)
		for shown := range strings.Lines(narrow.stdout) {
			if n := textWidth(strings.TrimRight(shown, "\n")); n > 80 && !strings.HasPrefix(shown, "(no room") {
				t.Errorf("%s: %d columns: %s", line, n, shown)
			}
		}
		head, _, _ := strings.Cut(narrow.stdout, "\n")
		all, _, _ := strings.Cut(ctl(t, server.Address, "", strings.Fields(line)...).stdout, "\n")
		wide, _, _ := strings.Cut(ctlAt(t, server.Address, 80, 24, false, append(strings.Fields(line), "-o", "wide")...).stdout, "\n")
		if wide != all {
			t.Errorf("%s: wide has %s, want %s", line, wide, all)
		}
		for title := range strings.FieldsSeq(must) {
			if !slices.Contains(strings.Fields(head), title) {
				t.Errorf("%s: no %s in %s", line, title, head)
			}
		}
		if (len(strings.Fields(head)) < len(strings.Fields(all))) != strings.Contains(narrow.stdout, "\n(no room for ") {
			t.Errorf("%s: not all columns, or a note of that:\n%s", line, narrow.stdout)
		}
	}
}

// TestLongValuesAreWhole: one long name takes no column from the others, and no part of it goes.
func TestLongValuesAreWhole(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	b.Online[1].UserName = strings.Repeat("long", 60)
	server := controltest.Serve(t, b, nil)
	r := ctlAt(t, server.Address, 80, 24, false, "subscriber", "list")
	head, _, _ := strings.Cut(r.stdout, "\n")
	if !strings.Contains(r.stdout, b.Online[1].UserName) || !strings.Contains(head, "OUTSIDE") {
		t.Errorf("%s", r.stdout)
	}
}

// TestListsInConstantMemory: a list keeps no more than its first rows, in every format.
func TestListsInConstantMemory(t *testing.T) {
	page := make([]*pb.Subscriber, pageSize)
	for i := range page {
		page[i] = &pb.Subscriber{Group: "default", InsideAddress: "100.64.0.7", UserName: strings.Repeat("u", 100), Binding: &pb.Binding{}}
	}
	for _, format := range outputFormats {
		a := sceneApp("", io.Discard, io.Discard)
		a.encoder = encoderOf(outputFormat(format))
		out := newList(&a.printer, subscriberHeader, subscriberCommands{a}.row)
		live := func() uint64 {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			return m.HeapAlloc
		}
		before := uint64(0)
		for i := range 40 {
			if err := out.addAll(page); err != nil {
				t.Fatal(err)
			}
			if i == 4 {
				before = live()
			}
		}
		if after := live(); after > before+1<<20 {
			t.Errorf("%s: %d octets after 5,000 rows, %d after 40,000", format, before, after)
		}
		runtime.KeepAlive(out)
	}
}

func TestFittingColumns(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		widths, least []int
		total         int
		want          []int
	}{
		{[]int{5, 5, 5}, []int{2, 1}, 0, []int{0, 1, 2}},
		{[]int{5, 5, 5}, []int{2, 1}, 19, []int{0, 1, 2}},
		{[]int{5, 5, 5}, []int{2, 1}, 18, []int{0, 1}},
		{[]int{5, 5, 5}, []int{0, 2}, 12, []int{1, 2}},
		{[]int{5, 5, 5}, []int{2, 1}, 1, []int{0}},
	} {
		if got := fittingColumns(c.widths, c.least, c.total); !slices.Equal(got, c.want) {
			t.Errorf("%v in %d: %v, want %v", c.widths, c.total, got, c.want)
		}
	}
}

// TestAdviceFits: the advice of explain is broken between words at a terminal, and stays whole in a pipe.
func TestAdviceFits(t *testing.T) {
	t.Parallel()
	server := controltest.Serve(t, controltest.Scene(), nil)
	narrow, whole := ctlAt(t, server.Address, 30, 24, false, "explain", "alice"), ctl(t, server.Address, "", "explain", "alice")
	advice, _, _ := strings.Cut(whole.stdout, "\n\n")
	if narrow.code != exitDone || strings.Contains(narrow.stdout, advice) {
		t.Errorf("code %d:\n%s", narrow.code, narrow.stdout)
	}
	broken, _, _ := strings.Cut(narrow.stdout, "\n\n")
	if strings.ReplaceAll(broken, "\n  ", " ") != advice {
		t.Errorf("%q became %q", advice, broken)
	}
	for line := range strings.Lines(broken) {
		if len(line) > 31 && strings.Contains(strings.TrimPrefix(line, "  "), " ") {
			t.Errorf("%q does not fit", line)
		}
	}
}

func TestBrokenLines(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"": "", "a b": "a b", "aaa bbb cc": "aaa|bbb cc", "aaaaaaaaaa b": "aaaaaaaaaa|b",
	} {
		if got := strings.Join(brokenLines(text, 6), "|"); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestTextWidth(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{"": 0, "alice": 5, "Zoë": 3, "e\u0301": 1, "日本": 4, "ＡＢ": 4} {
		if got := textWidth(text); got != want {
			t.Errorf("%q takes %d, want %d", text, got, want)
		}
	}
}

// TestRowsCannotBeForged: a value with a line end makes no row.
func TestRowsCannotBeForged(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	table := newTable(&printed{to: &out}, []string{"A", "B"})
	if err := table.gather([]string{"x\ny\tz", "\x1b[2J"}); err != nil || table.end() != nil {
		t.Fatal(err)
	}
	if out.String() != "A          B\nx%0Ay%09z  %1B[2J\n" {
		t.Errorf("%q", out.String())
	}
}

// TestColours: there are colours at a terminal alone, they change no text, and no name has one.
func TestColours(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	b.Online[0].UserName = "HELD"
	server := controltest.Serve(t, b, nil)
	for _, line := range []string{"subscriber list", "subscriber get 100.64.0.7", "status", "binding list"} {
		plain := ctlAt(t, server.Address, 80, 24, false, strings.Fields(line)...)
		coloured := ctlAt(t, server.Address, 80, 24, true, strings.Fields(line)...)
		var without strings.Builder
		for text := range strings.Lines(coloured.stdout) {
			without.WriteString(withoutStyles(text))
		}
		if coloured.stdout == plain.stdout || without.String() != plain.stdout || strings.Contains(plain.stdout, "\x1b") {
			t.Errorf("%s: %q and %q", line, coloured.stdout, plain.stdout)
		}
	}
	r := ctlAt(t, server.Address, 80, 24, true, "subscriber", "list")
	if strings.Contains(r.stdout, "mHELD") || !strings.Contains(r.stdout, "\x1b[32mACTIVE\x1b[0m") {
		t.Errorf("%q", r.stdout)
	}
}
