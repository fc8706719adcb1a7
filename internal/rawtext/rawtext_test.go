package rawtext

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestText_ACCT23(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ octets, text string }{
		{"", ""},
		{"alice@example.net", "alice@example.net"},
		{`CORP\alice`, `CORP\alice`},
		{"Jürgen ", "Jürgen "},
		{"100%", "100%"},
		{"user%realm", "user%realm"},
		{"a%41", "a%2541"},
		{"a%\xff", "a%%FF"},
		{"\x00\xff", "%00%FF"},
		{"line\r\nnext", "line%0D%0Anext"},
		{"\x1b[31mred", "%1B[31mred"},
		{"\u202egnp", "%E2%80%AEgnp"},
		{"\ufffd", "\ufffd"},
	} {
		if got := Of(c.octets); got != c.text {
			t.Errorf("Of(%q) = %q, want %q", c.octets, got, c.text)
		}
		if got := Octets(c.text); got != c.octets {
			t.Errorf("Octets(%q) = %q, want %q", c.text, got, c.octets)
		}
	}
	if got := Octets("%4a%zz"); got != "J%zz" {
		t.Errorf("lower-case digits: got %q", got)
	}
}

func FuzzText(f *testing.F) {
	for _, seed := range []string{"", "alice", "%", "%4", "%41", "%%41", "a%2", "\xff%", "\u202e", strings.Repeat("\x00", 253)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, octets string) {
		text := Of(octets)
		if !utf8.ValidString(text) {
			t.Errorf("Of(%q) = %q is no UTF-8", octets, text)
		}
		if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("Of(%q) = %q is not printable", octets, text)
		}
		if got := Octets(text); got != octets {
			t.Errorf("%q became %q became %q", octets, text, got)
		}
	})
}
