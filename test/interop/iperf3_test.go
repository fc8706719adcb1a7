package interop

import (
	"context"
	"encoding/json"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/rig"
	"github.com/sessiond/sessiond/internal/testenv"
)

// An iperf3Report is what iperf3 -J prints of a test, as far as it is read here.
type iperf3Report struct {
	Error string `json:"error"`
	End   struct {
		Streams []struct {
			Receiver *struct {
				Bytes int `json:"bytes"`
			} `json:"receiver"` // of TCP
			UDP *struct {
				Packets int `json:"packets"`
				Lost    int `json:"lost_packets"`
			} `json:"udp"`
		} `json:"streams"`
	} `json:"end"`
}

// connected finds the clients in what an iperf3 server prints, without the control connections.
var connected = regexp.MustCompile(`port 5201 connected to (\S+) port (\d+)`)

// TestIperf3_NAT02_NAT40_DEL04 runs iperf3's tests of TCP and UDP, both ways, with several
// streams each: octets arrive on all of them, and the server sees each from the block. At last a
// Stop ends the session while streams run: what runs is cut, and nothing is left.
func TestIperf3_NAT02_NAT40_DEL04(t *testing.T) {
	r := startRouter(t, testenv.Iperf3, "")
	server := r.serve(r.Lab.Internet, "Server listening", "iperf3", "-s", "-B", r.remote.String(), "--forceflush")
	const streams = 6
	for name, args := range map[string][]string{
		"tcp out": {"-t", "1"}, "tcp in": {"-t", "1", "-R"},
		"udp out": {"-u", "-b", "2M", "-l", "500", "-n", "20K"}, "udp in": {"-u", "-b", "2M", "-l", "500", "-n", "20K", "-R"},
	} {
		before := len(connected.FindAllString(server.Log(), -1))
		common := []string{"-c", r.remote.String(), "-B", alice.String(), "-P", "6", "-J", "--connect-timeout", "20000"}
		out := r.output(r.within(r.Lab.Subscriber, "iperf3", append(common, args...)...))
		var report iperf3Report
		if err := json.Unmarshal([]byte(out), &report); err != nil || report.Error != "" || len(report.End.Streams) != streams {
			t.Fatalf("%s: %v\n%s\nthe server printed\n%s", name, err, out, tail(server.Log()))
		}
		for i, s := range report.End.Streams {
			switch {
			case s.Receiver != nil && s.Receiver.Bytes > 0, s.UDP != nil && s.UDP.Packets > 0 && s.UDP.Lost < s.UDP.Packets/2:
			default:
				t.Errorf("%s: stream %d carries nothing, or loses half:\n%s", name, i, out)
			}
		}
		r.soon("iperf3's server to tell its streams", func() bool {
			return len(connected.FindAllString(server.Log(), -1)) >= before+streams
		})
	}
	seen := connected.FindAllStringSubmatch(server.Log(), -1)
	for _, s := range seen {
		if from, err := netip.ParseAddrPort(s[1] + ":" + s[2]); err != nil || !r.alice.Covers(from) {
			t.Errorf("a stream is seen from %s port %s, not in the block %d-%d", s[1], s[2], r.alice.FirstPort, r.alice.LastPort)
		}
	}
	if n := r.audited(); n < len(seen) {
		t.Errorf("conntrack has %d entries for %d streams", n, len(seen))
	}

	r.cut(server, streams)
}

// cut ends the session while streams run.
func (r *router) cut(server *rig.Program, streams int) {
	r.t.Helper()
	before := len(connected.FindAllString(server.Log(), -1))
	client := r.serve(r.Lab.Subscriber, "connected to", "iperf3", "-c", r.remote.String(), "-B", alice.String(),
		"-P", "6", "-b", "1M", "-l", "1000", "-t", "60", "--forceflush")
	r.soon("iperf3's streams to run", func() bool { return len(connected.FindAllString(server.Log(), -1)) == before+streams })
	outside := r.captureOn(netlab.OutsideInterface)
	fromAlice := func(p netlab.Packet) bool { return p.Outgoing && p.Source.Addr().String() == r.alice.OutsideAddress }
	_, err := outside.Await(r.ctx, fromAlice)
	r.must(err)
	r.must(r.Offline(r.ctx, rig.Session{ID: "a-1", User: "alice", Inside: alice}))
	ctx, cancel := context.WithTimeout(r.ctx, 10*time.Second)
	defer cancel()
	r.must(r.AwaitNothing(ctx, alice))
	r.settled(outside)
	outside.Clear()
	sent := r.drops("no_gate")
	r.soon("streams to meet the closed gate", func() bool { return r.drops("no_gate") >= sent+streams })
	r.settled(outside)
	if left := outside.Matching(fromAlice); len(left) > 0 {
		r.t.Errorf("%d packets left after the cut, the first is %+v", len(left), left[0])
	}
	if strings.Contains(client.Log(), "iperf Done") {
		r.t.Errorf("iperf3 has ended already:\n%s", client.Log())
	}
	r.leaksNothing(outside)
}
