package quota

import (
	"net"
	"testing"
)

func TestQuota(t *testing.T) {
	t.Parallel()
	q := New(3, 2)
	for i, step := range []struct{ enter, leave, want string }{
		{enter: "a"}, {enter: "a"}, {enter: "a", want: PeerLimit}, {enter: "b"}, {enter: "c", want: Limit},
		{leave: "a"}, {enter: "c"}, {enter: "a", want: Limit}, {leave: "c"}, {enter: "a"}, {enter: "a", want: PeerLimit},
	} {
		if step.leave != "" {
			q.Leave(step.leave)
			continue
		}
		if got := q.Enter(step.enter); got != step.want {
			t.Errorf("step %d: %q, want %q", i, got, step.want)
		}
	}
}

func TestPeerOf(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"192.0.2.7": "192.0.2.7", "::ffff:192.0.2.7": "192.0.2.7", "2001:db8:1:2:3::4": "2001:db8:1:2::/64",
	} {
		if got := PeerOf(&net.TCPAddr{IP: net.ParseIP(address), Port: 1}); got != want {
			t.Errorf("%s counts as %s, want %s", address, got, want)
		}
	}
}

// TestShares: a peer that is alone gets its share, and leaves room to a second, and that
// one to a third; a returned share is free for all.
func TestShares(t *testing.T) {
	t.Parallel()
	s := Shares{Alone: 100}
	fill := func(peer string) int {
		for s.Room(peer) {
			s.Add(peer, 1)
		}
		return s.Of(peer)
	}
	if s.All() != 125 {
		t.Errorf("there are %d for all, want 125", s.All())
	}
	for _, tt := range []struct {
		peer string
		want int
	}{{"a", 100}, {"b", 20}, {"c", 4}, {"a", 100}} {
		if got := fill(tt.peer); got != tt.want {
			t.Errorf("%s has %d, want %d", tt.peer, got, tt.want)
		}
	}
	if s.Total() != 124 {
		t.Errorf("all have %d, want 124", s.Total())
	}
	s.Add("a", -100)
	if s.Of("a") != 0 || !s.Room("c") || fill("b") != 97 {
		t.Errorf("a has %d, b %d, of what a gave back", s.Of("a"), s.Of("b"))
	}
}
