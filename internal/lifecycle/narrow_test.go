package lifecycle

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
)

var narrowBlock = nat.Block{Outside: netip.MustParseAddr("192.0.2.1"), First: 1024, Last: 2047}

func portsOf(first, last nat.Port) nat.Block {
	return nat.Block{Outside: narrowBlock.Outside, First: first, Last: last}
}

// useOf is the use of narrowBlock whose free ports, counted from its first, are given as ranges.
func useOf(free ...[2]int) (used []bool) {
	used = make([]bool, narrowBlock.Size())
	for i := range used {
		used[i] = true
	}
	for _, f := range free {
		for i := f[0]; i <= f[1]; i++ {
			used[i] = false
		}
	}
	return used
}

// TestChooseRange_NAT35: by the layout of free ports and the sessions that are expected, new
// sessions get ports of the whole range or of a part.
func TestChooseRange_NAT35(t *testing.T) {
	spread := [][2]int{} // one free port in 32
	for i := range 32 {
		spread = append(spread, [2]int{i * 32, i * 32})
	}
	remote := netip.MustParseAddrPort("203.0.113.1:53")
	for _, c := range []struct {
		what    string
		free    [][2]int
		begins  int
		present nat.Block
		want    nat.Block
	}{
		{"free ports everywhere", spread, 8, narrowBlock, narrowBlock},
		{"half of the block is free", [][2]int{{0, 511}}, 8, narrowBlock, narrowBlock},
		{"one gap in one part", [][2]int{{300, 319}}, 8, narrowBlock, portsOf(1024+256, 1024+383)},
		{"one gap, and more sessions than it has ports", [][2]int{{300, 319}}, 100, narrowBlock, portsOf(1024+256, 1024+383)},
		{"a gap over the border of two parts", [][2]int{{374, 393}}, 20, narrowBlock, portsOf(1024+256, 1024+511)},
		{"two gaps, and few sessions", [][2]int{{0, 9}, {900, 909}}, 8, narrowBlock, portsOf(1024+0, 1024+127)},
		{"two gaps, and many sessions", [][2]int{{0, 9}, {900, 909}}, 100, narrowBlock, narrowBlock},
		{"the present part is nearly as good", [][2]int{{0, 9}, {900, 908}}, 11, portsOf(1024+896, 1024+1023), portsOf(1024+896, 1024+1023)},
		{"the present part is full", [][2]int{{0, 9}}, 8, portsOf(1024+896, 1024+1023), portsOf(1024+0, 1024+127)},
		{"the present part is no longer needed", spread, 8, portsOf(1024+0, 1024+127), narrowBlock},
		{"nothing is free", nil, 8, narrowBlock, narrowBlock},
	} {
		use := remoteUse{nat.ProtocolUDP, remote, narrowBlock, useOf(c.free...), c.begins, c.present}
		if got := use.choose(); got != c.want {
			t.Errorf("%s: %d-%d, want %d-%d", c.what, got.First, got.Last, c.want.First, c.want.Last)
		}
	}
}

// TestNarrowingsRemotes_NAT35: each remote endpoint to which many ports lead has a part of its own.
func TestNarrowingsRemotes_NAT35(t *testing.T) {
	u := NewPortUse(nat.Blocks{Block: narrowBlock})
	add := func(protocol uint8, remote string, first, last nat.Port) {
		for p := first; p <= last; p++ {
			u.Add(&nat.Session{Protocol: protocol, Outside: netip.AddrPortFrom(narrowBlock.Outside, uint16(p)), Remote: netip.MustParseAddrPort(remote)})
		}
	}
	add(nat.ProtocolUDP, "203.0.113.1:53", 1024+20, 1024+1023)
	add(nat.ProtocolUDP, "203.0.113.2:53", 1024, 1024+1003)
	add(nat.ProtocolUDP, "203.0.113.3:53", 1024, 1024+400) // half is free
	add(nat.ProtocolUDP, "203.0.113.4:53", 1024, 1024+30)  // few
	add(nat.ProtocolTCP, "203.0.113.1:53", 1024+20, 1024+1023)
	n := newNarrowing(u, narrowBlock)
	n.choose(nil)
	if len(n.uses) != 4 {
		t.Errorf("%d remote endpoints", len(n.uses))
	}
	low, high := portsOf(1024, 1151), portsOf(1920, 2047)
	if got, want := n.pins(), []nat.Pin{
		{Protocol: nat.ProtocolTCP, Remote: netip.MustParseAddrPort("203.0.113.1:53"), Block: low},
		{Protocol: nat.ProtocolUDP, Remote: netip.MustParseAddrPort("203.0.113.1:53"), Block: low},
		{Protocol: nat.ProtocolUDP, Remote: netip.MustParseAddrPort("203.0.113.2:53"), Block: high},
	}; !slices.Equal(got, want) {
		t.Errorf("parts are %v, want %v", got, want)
	}
}

// TestFoundShare_NAT35: the computed share of new sessions that find a port is that of a
// simulated nf_nat.
func TestFoundShare_NAT35(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, used := range [][]bool{useOf(), useOf([2]int{0, 0}), useOf([2]int{500, 519}), useOf([2]int{1000, 1023}), useOf([2]int{0, 1023}), useOf([2]int{3, 3}, [2]int{600, 600})[:128], useOf()[:64]} {
		c := &churn{Rand: r, block: portsOf(1024, nat.Port(1023+len(used))), until: make([]time.Duration, len(used))}
		for i := range used {
			if used[i] {
				c.until[i] = time.Hour
			}
		}
		found := 0
		const trials = 4_000
		for range trials {
			if c.port(c.block) >= 0 {
				found++
			}
		}
		if got, want := foundShare(used), float64(found)/trials; got < want-0.03 || got > want+0.03 {
			t.Errorf("%d free of %d: computed %.3f, simulated %.3f", freeOf(used), len(used), got, want)
		}
	}
}

// churn simulates nf_nat, and a subscriber whose sessions to one remote endpoint begin at random
// times.
type churn struct {
	*rand.Rand
	block    nat.Block
	until    []time.Duration // when the session of each port ends; 0 for none
	at       time.Duration
	life     time.Duration // of a session
	interval time.Duration // mean, between two sessions
}

// newChurn fills ports of narrowBlock with sessions that stand: nf_nat chooses their ports, or
// they are the first ones.
func newChurn(seed uint64, standing int, clustered bool) *churn {
	c := &churn{Rand: rand.New(rand.NewPCG(seed, 1)), block: narrowBlock, until: make([]time.Duration, narrowBlock.Size()), life: 1e6 * time.Second}
	for n := 0; n < standing; {
		if clustered {
			c.until[n] = c.life
			n++
		} else if c.begin(narrowBlock) {
			n++
		}
	}
	return c
}

// port is nf_nat's choice of a port of r, or -1.
func (c *churn) port(r nat.Block) int {
	first := int(r.First - c.block.First)
	for tries := min(searchMost, r.Size()); ; tries /= 2 {
		off := c.IntN(1 << 16)
		for i := range tries {
			if p := first + (off+i)%r.Size(); c.until[p] <= c.at {
				return p
			}
		}
		if tries >= r.Size() || tries < 16 {
			return -1
		}
	}
}

func (c *churn) begin(r nat.Block) bool {
	p := c.port(r)
	if p < 0 {
		return false
	}
	c.until[p] = c.at + c.life
	return true
}

// use reads the ports in use.
func (c *churn) use() *PortUse {
	u := NewPortUse(nat.Blocks{Block: c.block})
	for p, until := range c.until {
		if until > c.at {
			u.Add(&nat.Session{
				Protocol: nat.ProtocolUDP, Outside: netip.AddrPortFrom(c.block.Outside, uint16(c.block.First)+uint16(p)),
				Remote: netip.MustParseAddrPort("203.0.113.1:53"),
			})
		}
	}
	return u
}

// run begins sessions, and returns the share of them that got a port. Ranges are chosen after
// looks that are at least rest apart; never for 0.
func (c *churn) run(sessions int, rest time.Duration) float64 {
	r, last, found, left, looked := c.block, (*narrowing)(nil), 0, 1, c.at
	for range sessions {
		c.at += time.Duration(c.ExpFloat64() * float64(c.interval))
		if c.begin(r) {
			found++
			left--
		}
		if rest > 0 && left <= 0 && c.at >= looked+rest {
			n := newNarrowing(c.use(), c.block)
			n.choose(last)
			r, last, looked = c.block, n, c.at
			if len(n.uses) > 0 {
				r = n.uses[0].part
			}
			left = n.next(c.block.Size() / 8)
		}
	}
	return float64(found) / float64(sessions)
}

// TestNarrowingPays_NAT35_NAT32: where standing sessions fill a block, parts of it find more ports
// than the whole; where all sessions come and go, about as many.
func TestNarrowingPays_NAT35_NAT32(t *testing.T) {
	for _, c := range []struct {
		what           string
		standing       int
		clustered      bool
		interval, life time.Duration
		gain           float64 // of the share of sessions that find a port, at least
	}{
		{"nf_nat filled 95 %, few short sessions", 972, false, time.Second, 5 * time.Second, 0.02},
		{"nf_nat filled 98 %, few short sessions", 1003, false, time.Second, 5 * time.Second, 0.15},
		{"nf_nat filled 98 %, ten sessions a second", 1003, false, 100 * time.Millisecond, 500 * time.Millisecond, 0.15},
		{"nf_nat filled 98 %, all of the rest is used", 1003, false, time.Second, 20 * time.Second, 0.05},
		{"90 % without a gap", 921, true, time.Second, 5 * time.Second, 0.4},
		{"98 % without a gap", 1003, true, time.Second, 5 * time.Second, 0.6},
		{"98 % without a gap, fifty sessions a second", 1003, true, 20 * time.Millisecond, 200 * time.Millisecond, 0.4},
		{"all sessions last two minutes, 95 % in use", 0, false, 123 * time.Millisecond, 2 * time.Minute, -0.02},
		{"all sessions last two minutes, 98 % in use", 0, false, 119600 * time.Microsecond, 2 * time.Minute, -0.02},
		{"all sessions last two minutes, too many begin", 0, false, 107 * time.Millisecond, 2 * time.Minute, -0.02},
		{"all sessions last 30 s, 98 % in use", 0, false, 29900 * time.Microsecond, 30 * time.Second, -0.02},
	} {
		const seeds = 4
		whole, narrowed := 0.0, 0.0
		for seed := range uint64(seeds) {
			for rest, sum := range map[time.Duration]*float64{0: &whole, 250 * time.Millisecond: &narrowed} {
				x := newChurn(seed, c.standing, c.clustered)
				x.interval, x.life = c.interval, c.life
				sessions := 600
				if c.standing == 0 { // two lives to begin with, and two
					sessions = int(2 * c.life / c.interval)
					x.run(sessions, rest)
				}
				*sum += x.run(sessions, rest) / seeds
			}
		}
		t.Logf("%s: %.3f find a port in the whole block, %.3f in the part that is chosen", c.what, whole, narrowed)
		if narrowed < whole+c.gain {
			t.Errorf("%s: the gain is %.3f, want at least %.2f", c.what, narrowed-whole, c.gain)
		}
	}
}

// BenchmarkNarrow measures the choice for a subscriber whose ports lead to one remote endpoint.
func BenchmarkNarrow(b *testing.B) {
	c := newChurn(1, 1003, false)
	u := c.use()
	b.ReportAllocs()
	var last *narrowing
	for b.Loop() {
		n := newNarrowing(u, c.block)
		n.choose(last)
		last = n
	}
}
