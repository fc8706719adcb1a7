package nftnat

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/sessiond/sessiond/internal/conntrack"
	"github.com/sessiond/sessiond/internal/nat"
	"golang.org/x/sys/unix"
)

func tuple(protocol uint8, src, dst string) conntrack.Tuple {
	s, d := netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
	return conntrack.Tuple{Src: s.Addr(), SrcPort: s.Port(), Dst: d.Addr(), DstPort: d.Port(), Protocol: protocol}
}

func TestSessionsOfAnEntry(t *testing.T) {
	type view struct {
		direction               nat.Direction
		inside, outside, remote string
		state                   string
	}
	for _, tc := range []struct {
		name  string
		entry conntrack.Entry
		want  []view
	}{
		{
			"outbound",
			conntrack.Entry{
				Orig:  tuple(unix.IPPROTO_TCP, "100.64.0.10:5000", "203.0.113.10:80"),
				Reply: tuple(unix.IPPROTO_TCP, "203.0.113.10:80", "198.51.100.1:1024"), TCPState: 3,
			},
			[]view{{nat.Outbound, "100.64.0.10:5000", "198.51.100.1:1024", "203.0.113.10:80", "ESTABLISHED"}},
		},
		{
			"inbound",
			conntrack.Entry{
				Orig:  tuple(unix.IPPROTO_UDP, "203.0.113.10:9", "198.51.100.1:1024"),
				Reply: tuple(unix.IPPROTO_UDP, "100.64.0.10:5000", "203.0.113.10:9"), Status: conntrack.StatusSeenReply,
			},
			[]view{{nat.Inbound, "100.64.0.10:5000", "198.51.100.1:1024", "203.0.113.10:9", "REPLIED"}},
		},
		{
			"hairpin",
			conntrack.Entry{
				Orig:  tuple(unix.IPPROTO_UDP, "100.64.0.10:5000", "198.51.100.1:2000"),
				Reply: tuple(unix.IPPROTO_UDP, "100.64.0.11:6000", "198.51.100.1:1024"), Status: conntrack.StatusAssured | conntrack.StatusSeenReply,
			},
			[]view{
				{nat.Outbound, "100.64.0.10:5000", "198.51.100.1:1024", "198.51.100.1:2000", "ASSURED"},
				{nat.Inbound, "100.64.0.11:6000", "198.51.100.1:2000", "198.51.100.1:1024", "ASSURED"},
			},
		},
		{
			"echo", // type and code are in place of the target's port
			conntrack.Entry{
				Orig:  tuple(unix.IPPROTO_ICMP, "100.64.0.10:7", "203.0.113.10:2048"),
				Reply: tuple(unix.IPPROTO_ICMP, "203.0.113.10:1343", "198.51.100.1:0"),
			},
			[]view{{nat.Outbound, "100.64.0.10:7", "198.51.100.1:1343", "203.0.113.10:0", "UNREPLIED"}},
		},
		{
			"nobody's",
			conntrack.Entry{
				Orig:  tuple(unix.IPPROTO_UDP, "203.0.113.10:9", "203.0.113.1:9"),
				Reply: tuple(unix.IPPROTO_UDP, "203.0.113.1:9", "203.0.113.10:9"),
			},
			nil,
		},
	} {
		var got []view
		for _, s := range SessionsIn(tc.entry, []netip.Prefix{netip.MustParsePrefix("100.64.0.0/10")}) {
			got = append(got, view{s.Direction, s.Inside.String(), s.Outside.String(), s.Remote.String(), s.State})
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
}
