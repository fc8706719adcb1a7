package pcp

import (
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/pcp/wire"
	"github.com/sessiond/sessiond/internal/rig"
	"github.com/sessiond/sessiond/internal/testenv"
)

// TestTshark: tshark's dissectors of PCP and NAT-PMP read every message, of each kind, and find
// none malformed.
func TestTshark_PCP07_PCP36(t *testing.T) {
	testenv.Require(t, testenv.Tshark)
	s := newScene(t, netip.PrefixFrom(alice, 32))
	file := filepath.Join(t.TempDir(), "pcp.pcap")
	dump, err := rig.Run(exec.Command("nsenter", "--net="+s.CGN.Path(), "--", "tcpdump", "-i", netlab.InsideInterface, "-n", "-U", "--immediate-mode", "-Z", "root", "-w", file, "udp"))
	s.must(err)
	t.Cleanup(func() { _ = dump.Kill() })
	s.must(dump.AwaitLine(t.Context(), "listening on"))
	c := s.dial(s.Subscriber, alice, netlab.InsideGateway.Addr())
	filter := wire.Option{Code: wire.FilterOption, Filter: wire.Filter{Prefix: netip.MustParsePrefix("203.0.113.0/24"), Port: 443}}
	requests := []*wire.Request{
		{Opcode: wire.Announce}, mapping(5000, 3600), mapping(0, 3600), mapping(5000, 0), peering(5001, 600),
		suggesting(mapping(5002, 600, wire.Option{Code: wire.PreferFailure}, filter), "198.51.100.1:60003"),
		mapping(5003, 600, wire.Option{Code: wire.ThirdParty, Inside: bob}), mapping(5003, 600, wire.Option{Code: wire.ThirdParty, Inside: portal}),
	}
	answered := map[wire.Result]int{}
	for _, r := range requests {
		r.Client = alice
		a, err := s.exchange(c, r)
		s.must(err)
		answered[a.Result]++
	}
	if answered[wire.Success] != 6 || len(answered) != 3 {
		t.Errorf("the answers are %v", answered)
	}
	for _, r := range []wire.NATPMPRequest{{}, {Protocol: 17, InsidePort: 5005, Lifetime: 600}, {Protocol: 6, InsidePort: 5006, Lifetime: 600}, {Protocol: 6, InsidePort: 5006}} {
		_, err := c.Write(wire.AppendNATPMPRequest(nil, &r))
		s.must(err)
		s.must(c.SetReadDeadline(time.Now().Add(5 * time.Second)))
		_, err = c.Read(make([]byte, 100))
		s.must(err)
	}
	const sound = 2 * (8 + 4)
	_, err = c.Write(wire.AppendRequest(nil, requests[1])[:24]) // proof that tshark complains: of it, and of its answer
	s.must(err)
	_, err = c.Read(make([]byte, 100))
	s.must(err)
	out := tshark(t, file, sound+2)
	s.must(dump.Stop())
	var pcp, natpmp, malformed int
	for line := range strings.Lines(out) {
		switch fields := strings.Split(strings.TrimSuffix(line, "\n"), "\t"); {
		case fields[3] != "":
			malformed++
		case fields[1] != "":
			pcp++
		case fields[2] != "":
			natpmp++
		}
	}
	if pcp != 16 || natpmp != 8 || malformed != 2 {
		t.Errorf("tshark reads %d messages of PCP and %d of NAT-PMP, and finds %d malformed, want 16, 8 and 2:\n%s", pcp, natpmp, malformed, out)
	}
}

// tshark returns fields of each packet of a capture, once it has all.
func tshark(t *testing.T, file string, packets int) (out string) {
	t.Helper()
	testenv.Succeeds(t, func() error {
		b, err := exec.CommandContext(t.Context(), "tshark", "-n", "-r", file, "-T", "fields", "-e", "frame.number", "-e", "portcontrol.opcode", "-e", "nat-pmp.opcode", "-e", "_ws.malformed").Output()
		if n := strings.Count(string(b), "\n"); n < packets {
			return fmt.Errorf("%d packets in the capture, want %d: %v", n, packets, err)
		}
		out = string(b)
		return nil
	})
	return out
}
