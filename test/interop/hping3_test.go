package interop

import (
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/testenv"
)

// hping3 sends a number of packets, and returns the number of answers.
func (r *router) hping3(from *netlab.Namespace, packets int, args ...string) (answers int, out string, err error) {
	args = append([]string{"-c", fmt.Sprint(packets), "-n"}, args...)
	text, err := r.within(from, "hping3", args...).CombinedOutput()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		err = nil // hping3 ends with 1 where nothing answers
	}
	m := received.FindSubmatch(text)
	if m == nil {
		return 0, string(text), errors.Join(err, errors.New("hping3 prints no number of answers"))
	}
	_, scanErr := fmt.Sscan(string(m[1]), &answers)
	return answers, string(text), errors.Join(err, scanErr)
}

var received = regexp.MustCompile(`packets transmitted, (\d+) packets received`)

// TestHping3_NAT13_NAT15_NAT16_NAT21: hping3 gets an answer to each of its SYNs, of its SYNs
// whose header is in two fragments, and of its pings in fragments. From outside its SYNs, at a
// port in a block and at one in none, get no answer for 6 s (RFC 5382 REQ-4), its other probes
// none either, and none arrives at the subscriber.
func TestHping3_NAT13_NAT15_NAT16_NAT21(t *testing.T) {
	r := startRouter(t, testenv.Hping3, "")
	echo, err := r.Lab.StartEcho(netip.AddrPortFrom(r.remote, 7000))
	r.must(err)
	outside, inside := r.captureOn(netlab.OutsideInterface), r.captureOn(netlab.InsideInterface)

	var silent sync.WaitGroup
	inBlock := fmt.Sprint(r.alice.FirstPort + 6)
	for _, probe := range []string{"-S -p " + inBlock, "-S -p 60000", "-2 -p " + inBlock, "-A -p " + inBlock, "-S -f -p " + inBlock} {
		silent.Go(func() {
			args := append(strings.Fields(probe), "-i", "1", r.alice.OutsideAddress)
			if n, out, err := r.hping3(r.Lab.Internet, 6, args...); n != 0 || err != nil {
				t.Errorf("hping3 %s from outside gets %d answers: %v\n%s", probe, n, err, out)
			}
		})
	}

	const packets = 5
	for _, probe := range []string{"-S -p 7000", "-S -f -p 7000", "-1 -d 200 -f", "-1 -d 2500 -f -m 800"} {
		args := append(strings.Fields(probe), "-i", "u20000", "-a", alice.String(), r.remote.String())
		n, out, err := r.hping3(r.Lab.Subscriber, packets, args...)
		if n != packets { // on a busy machine hping3 misses answers that come
			n, out, err = r.hping3(r.Lab.Subscriber, packets, args...)
		}
		if n != packets || err != nil {
			t.Errorf("hping3 %s gets %d answers to %d packets: %v\n%s", probe, n, packets, err, out)
		} else if strings.HasPrefix(probe, "-S") && strings.Count(out, "flags=SA") != packets {
			t.Errorf("hping3 %s: an answer is no SYN-ACK:\n%s", probe, out)
		}
	}
	for _, s := range echo.Seen() {
		if !r.alice.Covers(s.Source) {
			t.Errorf("the server sees %v, not in the block %d-%d", s.Source, r.alice.FirstPort, r.alice.LastPort)
		}
	}
	r.audited()
	silent.Wait()

	r.leaksNothing(outside)
	if seen := outside.Matching(func(p netlab.Packet) bool {
		return p.Outgoing && p.Destination.Addr() == r.remote && p.Source.Addr() != netlab.OutsideGateway.Addr() &&
			(p.Quoted != nil || p.Flags&netlab.RST != 0 && p.Destination.Port() != 7000)
	}); len(seen) > 0 {
		t.Errorf("unsolicited packets are answered: %+v", seen[0])
	}
	r.must(inside.Settle(r.ctx, r.Lab.CGN, alice))
	probes := func(p netlab.Packet) bool {
		return p.Source.Addr() == r.remote && (p.Protocol == netlab.TCP || p.Protocol == netlab.UDP) && p.Source.Port() != echo.Addr().Port()
	}
	if n := len(outside.Matching(probes)); n < 5*6 {
		t.Errorf("%d probes came to the CGN, want %d", n, 5*6)
	}
	if seen := inside.Matching(probes); len(seen) > 0 {
		t.Errorf("an unsolicited packet arrives at the subscriber: %+v", seen[0])
	}
}
