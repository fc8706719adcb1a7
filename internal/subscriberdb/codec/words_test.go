package codec

import (
	"encoding"
	"fmt"
	"slices"
	"testing"
)

// texts returns the arguments of a list as the client sends them.
func texts(t *testing.T, l *ArgBuffer) []string {
	t.Helper()
	var all []string
	for _, arg := range l.List {
		m, ok := arg.(encoding.BinaryMarshaler)
		if !ok {
			all = append(all, fmt.Sprint(arg))
			continue
		}
		text, err := m.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(text))
	}
	return all
}

// TestArgListIsUsedAgain: the arguments have their values, also while the buffer grows and
// after other uses of it, and nothing of a list is left after its reset.
func TestArgListIsUsedAgain(t *testing.T) {
	var l ArgBuffer
	for round, n := range []int{1, 1000, 3, 200} {
		want := []string{"evalsha", "7", ""}
		l.List = append(l.List, "evalsha", 7)
		l.Cut() // without text
		for i := range n {
			text := fmt.Sprintf("argument %d of round %d", i, round)
			l.Text = append(l.Text, text...)
			l.Cut()
			want = append(want, text)
		}
		if got := texts(t, &l); !slices.Equal(got, want) {
			t.Fatalf("round %d: %q, want %q", round, got, want)
		}
		used := l.List
		l.Reset()
		if len(l.List) != 0 || slices.ContainsFunc(used, func(arg any) bool { return arg != nil }) {
			t.Fatalf("round %d: %v after reset", round, used)
		}
	}
	l.Text = make([]byte, keepText+1)
	if l.Reset(); l.Text != nil {
		t.Errorf("%d octets are kept", cap(l.Text))
	}
}
