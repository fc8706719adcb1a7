package session

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/sessiond/sessiond/internal/lifecycle"
	"github.com/sessiond/sessiond/internal/nat"
)

// TestCoalesce: of several writes to a place in one batch, the last one counts, and nothing
// is left of the batch before.
func TestCoalesce(t *testing.T) {
	write := func(first nat.Port, user string) lifecycle.Write {
		block := nat.Block{Outside: netip.MustParseAddr("198.18.0.1"), First: first, Last: first + 511}
		return lifecycle.Write{Binding: nat.Binding{Group: "g", Blocks: nat.Blocks{Block: block}, Holder: nat.Holder{UserName: user}}}
	}
	a, b, held, again := write(1024, "a"), write(2048, "b"), write(1024, "a"), write(2048, "b2")
	held.Remove, held.Again, again.Again = true, true, true
	byGroup := map[string]*writes{}
	for _, tt := range []struct {
		batch  []lifecycle.Write
		put    []string
		remove []nat.Place
	}{
		{[]lifecycle.Write{a, b}, []string{"a", "b"}, nil},
		{[]lifecycle.Write{a, b, held}, []string{"b"}, []nat.Place{a.Binding.Place()}},
		{[]lifecycle.Write{again}, []string{"b2"}, nil}, // the write before is in an earlier batch
		{[]lifecycle.Write{b, again, again}, []string{"b2"}, nil},
	} {
		coalesce(tt.batch, byGroup, false)
		var put []string
		for _, b := range byGroup["g"].put {
			put = append(put, b.UserName)
		}
		if w := byGroup["g"]; !slices.Equal(put, tt.put) || !slices.Equal(w.remove, tt.remove) {
			t.Errorf("%d writes: puts %v and removes %v, want %v and %v", len(tt.batch), put, w.remove, tt.put, tt.remove)
		}
	}
}
