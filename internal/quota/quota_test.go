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
