package nftnat

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/conntrack"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/testenv"
)

// Contract is the common interface of Kernel and memnat.NAT.
type Contract interface {
	Run(ctx context.Context) error
	Ready() <-chan struct{}
	Programmed() bool
	Learn(ctx context.Context, inside []netip.Addr) error
	LearnRest(ctx context.Context) error
	EntryAt(inside netip.Addr) (nat.Entry, bool)
	EntriesFrom(ctx context.Context, from netip.Addr, n int) (entries []nat.Entry, next netip.Addr)
	Elements() int
	Changed() <-chan struct{}
	Apply(ctx context.Context, entries []nat.Entry) error
	NoteBlocks(inside netip.Addr, blocks nat.Blocks)
	Reap(ctx context.Context, inside []netip.Addr) ([]nat.Reaped, error)
	Sessions(ctx context.Context, yield func(Session) error) error
	SessionsOf(ctx context.Context, inside netip.Prefix, yield func(Session) error) error
	SessionCount(inside netip.Addr) int
	SessionTotal() int
	PortUse(inside netip.Addr) nat.PortUse
	PortUses(yield func([]conntrack.PortUser))
	Counts(inside netip.Addr) nat.SessionCounts
	AddressCounts(yield func([]conntrack.AddressCount))
	IndexStats() IndexStats
	Idle() <-chan netip.Addr
	Idlers(ctx context.Context, inside []netip.Addr) ([]netip.Addr, error)
	CountBegun(least int)
	Begun() <-chan struct{}
	ListBegun() []netip.Addr
	LookAgain(inside netip.Addr, after int)
	Vacant(ctx context.Context, inside netip.Addr, b nat.Block) (bool, error)
	SetPins(ctx context.Context, inside netip.Addr, pins []nat.Pin) error
	Pins(inside netip.Addr) []nat.Pin
	Pinned() []netip.Addr
	SettledSessionsOf(ctx context.Context, inside netip.Addr, yield func(Session) error) (sure bool, err error)
	Ports(inside netip.Addr, protocol uint8) []uint16
	KillSession(ctx context.Context, s Session) error
	SetTimeouts(ctx context.Context, t nat.Timeouts) error
	SetGroupTimeouts(ctx context.Context, groups []nat.GroupTimeouts) error
	SetPrefixes(ctx context.Context, inside, outside []netip.Prefix, m Mappings) error
	SetNoNAT(ctx context.Context, list []nat.NoNAT) error
	Drops(ctx context.Context) ([]nat.DropCount, error)
	SetLimits(ctx context.Context, list []nat.PrefixLimits) error
	Refusals(ctx context.Context) ([]nat.Refusal, error)
	SetStatic(ctx context.Context, list []StaticPorts) error
	SetPCP(ctx context.Context, p PCP) error
	ExpectStatic(endpoints []nat.Endpoint)
}

// A Twin is a Kernel or a memnat.NAT with traffic through it.
type Twin struct {
	Contract
	Ask    func(inside netip.AddrPort) (seen netip.AddrPort, err error) // a datagram out and one back
	Other  func(inside netip.AddrPort) (seen netip.AddrPort, err error) // as Ask, with another host
	Remote netip.AddrPort                                               // the host that Ask sends to
	Tamper func(entries ...nat.Entry)                                   // changes elements in the manner of other programs
	Reach  func(inside, outside netip.AddrPort) error                   // a datagram of another host to a mapping of an inside endpoint
}

const twinPatience = 300 * time.Millisecond // the wait for events that must not come

// KernelTwin is a Kernel in a lab.
func KernelTwin(t *testing.T) Twin {
	lab := newLab(t)
	echo, err := lab.StartEcho(netip.AddrPortFrom(lab.Remotes[0], 7000))
	if err != nil {
		t.Fatal(err)
	}
	back := netlab.Route{Destination: netlab.InsideGateway.Masked(), Gateway: netlab.OutsideGateway.Addr()} // to sessions without NAT
	if err := lab.Internet.AddRoute(back); err != nil {
		t.Fatal(err)
	}
	other, err := lab.StartEcho(netip.AddrPortFrom(lab.Remotes[1], 7000))
	if err != nil {
		t.Fatal(err)
	}
	asking := func(echo netip.AddrPort) func(netip.AddrPort) (netip.AddrPort, error) {
		return func(inside netip.AddrPort) (netip.AddrPort, error) {
			ctx, cancel := context.WithTimeout(context.Background(), twinPatience)
			defer cancel()
			return lab.Subscriber.AskUDP(ctx, inside, echo)
		}
	}
	w := wireTest{Lab: lab}
	reach := func(inside, outside netip.AddrPort) error {
		s, other := w.socket(t, inside.Addr(), inside.Port()), w.host(t, 1, 0)
		defer s.Close()
		defer other.Close()
		_, err := passes(other, outside, s, twinPatience)
		return err
	}
	return Twin{startKernel(t, labOptions(lab)), asking(echo.Addr()), asking(other.Addr()), echo.Addr(), newOthers(t, lab).change, reach}
}

// Body runs the parts of the contract one after the other, until one fails.
func (n Twin) Body(t *testing.T) {
	for _, part := range []struct {
		name string
		body func(*testing.T, Twin)
	}{
		{"closed at first", closedAtFirst_I3},
		{"open", open_NAT02},
		{"ports", ports_NAT39},
		{"sessions", sessions},
		{"draining", draining_DEL11},
		{"cut and reaped", cutAndReaped_DEL01_DEL02_DEL07},
		{"idle", idle},
		{"limits", limits_NAT28_NAT32},
		{"other ports for new sessions", resized_NAT35},
		{"busy", busy_NAT35},
		{"refused", refused},
		{"repeated and in bulk", bulk},
		{"reconfigured", reconfigured},
		{"timeouts of groups", timeoutsOfGroups_NAT05},
		{"others change elements", othersChange},
		{"pages", pages},
		{"drops", drops_NAT39},
		{"no NAT", noNAT_NAT29},
		{"mapped", mapped_NAT07_DEL02},
		{"static mappings", static_DEL02_DEL03},
		{"pinned", pinned_NAT01_NAT35_DEL02},
		{"narrowed", narrowed_NAT35_DEL02},
		{"mapped in several blocks", mappedBlocks_NAT01_NAT35},
	} {
		if !t.Run(part.name, func(t *testing.T) { part.body(t, n) }) {
			return
		}
	}
}

func closedAtFirst_I3(t *testing.T, n Twin) {
	if seen, err := n.Ask(netip.AddrPortFrom(alice, 5000)); err == nil {
		t.Errorf("a packet passed without a gate, seen from %v", seen)
	}
	wantEntries(t, n)
	wantSessions(t, n, alice, 0)
}

func open_NAT02(t *testing.T, n Twin) {
	apply(t, n, blockOf(alice, nat.GateOpen, 0), blockOf(bob, nat.GateOpen, 1))
	wantEntries(t, n, blockOf(alice, nat.GateOpen, 0), blockOf(bob, nat.GateOpen, 1))
	for i, inside := range []netip.Addr{alice, bob} {
		for port := uint16(5000); port < 5003; port++ {
			seen := mustAsk(t, n, netip.AddrPortFrom(inside, port))
			if b := blockOf(inside, nat.GateOpen, i); seen.Addr() != b.Outside || nat.Port(seen.Port()) < b.First || nat.Port(seen.Port()) > b.Last {
				t.Errorf("%v is seen from %v, want %v:%d-%d", inside, seen, b.Outside, b.First, b.Last)
			}
		}
		wantSessions(t, n, inside, 3)
	}
}

func ports_NAT39(t *testing.T, n Twin) {
	for range 2 { // the same ports again
		for port := uint16(5000); port < 5003; port++ {
			mustAsk(t, n, netip.AddrPortFrom(bob, port))
		}
	}
	got := map[netip.Addr]nat.PortUse{}
	n.PortUses(func(some []conntrack.PortUser) {
		for _, u := range some {
			got[u.Inside] = u.PortUse
		}
	})
	if want := (nat.PortUse{UDP: 3}); len(got) != 2 || got[alice] != want || got[bob] != want || n.PortUse(bob) != want {
		t.Errorf("ports in use: %v, of bob %v; want 3 of alice and of bob", got, n.PortUse(bob))
	}
	counts := n.Counts(bob)
	if counts.UDP != n.SessionCount(bob) || counts.Total() != counts.UDP || counts.Began != counts.UDP {
		t.Errorf("bob has %+v of %d sessions", counts, n.SessionCount(bob))
	}
	n.AddressCounts(func(some []conntrack.AddressCount) {
		for _, c := range some {
			if c.Inside == bob && (c.Entries != counts.UDP || c.Begun < uint32(counts.Began)) {
				t.Errorf("bob has %+v, want %d", c, counts.UDP)
			}
		}
	})
}

func sessions(t *testing.T, n Twin) {
	var killed Session
	err := n.Sessions(testContext(t), func(s Session) error {
		if s.Inside == netip.AddrPortFrom(bob, 5002) {
			killed = s
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if killed.Protocol != unix.IPPROTO_UDP || killed.Outside.Addr() != eip || killed.Remote != n.Remote ||
		killed.Direction != nat.Outbound || killed.State != "REPLIED" || killed.ExpiresIn <= 0 {
		t.Errorf("session is %+v", killed)
	}
	wantOwn(t, n, bob, 3)
	for range 2 { // the second time it is gone already
		if err := n.KillSession(testContext(t), killed); err != nil {
			t.Fatal(err)
		}
	}
	wantSessions(t, n, bob, 2)
	wantOwn(t, n, bob, 2)
	if got := n.SessionTotal(); got != 5 {
		t.Errorf("%d sessions in total, want 5", got)
	}
	stop := errors.New("enough")
	if err := n.Sessions(testContext(t), func(Session) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("Sessions returned %v, want the error of yield", err)
	}
}

// wantOwn checks that SessionsOf yields the sessions of one address, and of prefixes
// around it, as Sessions does.
func wantOwn(t *testing.T, n Contract, inside netip.Addr, want int) {
	t.Helper()
	seen := make(map[Session]int)
	count := func(s Session) error {
		if s.Inside.Addr() == inside {
			s.ExpiresIn, s.Entry.Timeout = 0, 0 // go on while we look
			seen[s]++
		}
		return nil
	}
	errs := []error{n.Sessions(testContext(t), count)}
	for _, bits := range []int{32, 25, 24, 20} { // one address, a few, many
		p, err := inside.Prefix(bits)
		errs = append(errs, err, n.SessionsOf(testContext(t), p, count))
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	for s, times := range seen {
		if times != 5 {
			t.Errorf("one of SessionsOf and Sessions lacks %+v", s)
		}
	}
	if len(seen) != want {
		t.Errorf("%d sessions of %v, want %d", len(seen), inside, want)
	}
}

func draining_DEL11(t *testing.T, n Twin) {
	apply(t, n, blockOf(alice, nat.GateDraining, 0))
	wantEntries(t, n, blockOf(alice, nat.GateDraining, 0), blockOf(bob, nat.GateOpen, 1))
	mustAsk(t, n, netip.AddrPortFrom(alice, 5000))
	if seen, err := n.Ask(netip.AddrPortFrom(alice, 5009)); err == nil {
		t.Errorf("a new session began while draining, seen from %v", seen)
	}
	mustAsk(t, n, netip.AddrPortFrom(bob, 5000))
	apply(t, n, blockOf(alice, nat.GateOpen, 0))
	mustAsk(t, n, netip.AddrPortFrom(alice, 5009))
}

func cutAndReaped_DEL01_DEL02_DEL07(t *testing.T, n Twin) {
	apply(t, n, nat.Entry{Inside: alice})
	wantEntries(t, n, blockOf(bob, nat.GateOpen, 1))
	if seen, err := n.Ask(netip.AddrPortFrom(alice, 5000)); err == nil {
		t.Errorf("a packet passed a closed gate, seen from %v", seen)
	}
	wantReaped(t, n, alice, 4)
	wantReaped(t, n, alice, 0)
	wantSessions(t, n, alice, 0)
	wantSessions(t, n, bob, 2)
	mustAsk(t, n, netip.AddrPortFrom(bob, 5000))
}

// noNAT_NAT29: sessions to some destinations keep their inside address, behind the same gate,
// and a removal takes them.
func noNAT_NAT29(t *testing.T, n Twin) {
	set := func(list ...nat.NoNAT) {
		t.Helper()
		if err := n.SetNoNAT(testContext(t), list); err != nil {
			t.Fatal(err)
		}
	}
	all := nat.NoNAT{Inside: []netip.Prefix{netip.PrefixFrom(alice, 32)}, Remote: netip.PrefixFrom(n.Remote.Addr(), 32), Protocol: unix.IPPROTO_UDP, First: n.Remote.Port(), Last: n.Remote.Port()}
	set(all)
	if seen, err := n.Ask(netip.AddrPortFrom(alice, 7000)); err == nil {
		t.Errorf("a packet passed without a gate, seen from %v", seen)
	}
	apply(t, n, blockOf(alice, nat.GateOpen, 0), blockOf(bob, nat.GateOpen, 7))
	from := netip.AddrPortFrom(alice, 7001)
	if seen := mustAsk(t, n, from); seen != from {
		t.Errorf("%v is seen from %v, want itself", from, seen)
	}
	if seen := mustAsk(t, n, netip.AddrPortFrom(bob, 7001)); seen.Addr() != eip {
		t.Errorf("%v, who is not listed, is seen from %v", bob, seen)
	}
	wantSessions(t, n, alice, 1)
	apply(t, n, blockOf(alice, nat.GateDraining, 0))
	mustAsk(t, n, from)
	if seen, err := n.Ask(netip.AddrPortFrom(alice, 7002)); err == nil {
		t.Errorf("a new session began while draining, seen from %v", seen)
	}
	apply(t, n, nat.Entry{Inside: alice})
	wantReaped(t, n, alice, 1)
	apply(t, n, blockOf(alice, nat.GateOpen, 0))
	mustAsk(t, n, from)
	set()
	testenv.Succeeds(t, func() error { // once the session without NAT is gone
		seen, err := n.Ask(from)
		if err == nil && seen.Addr() != eip {
			err = fmt.Errorf("%v is seen from %v, want it translated", from, seen)
		}
		return err
	})
	set(all)
	limit := []nat.PrefixLimits{{Inside: all.Inside, Limits: nat.Limits{Sessions: 1}}}
	if err := n.SetLimits(testContext(t), limit); err != nil {
		t.Fatal(err)
	}
	limited := uint16(8000)
	testenv.Succeeds(t, func() error { // once the index has counted the session of from
		limited++
		if seen, err := n.Ask(netip.AddrPortFrom(alice, limited)); err == nil {
			return fmt.Errorf("a session without NAT began at the limit, seen from %v", seen)
		}
		return nil
	})
	if err := n.SetLimits(testContext(t), nil); err != nil {
		t.Fatal(err)
	}
	other := all
	other.First, other.Last = other.First+1, other.Last+1
	set(other)
	if seen := mustAsk(t, n, netip.AddrPortFrom(alice, 7003)); seen.Addr() != eip {
		t.Errorf("to another port than listed alice is seen from %v", seen)
	}
	set()
	apply(t, n, nat.Entry{Inside: alice})
	if _, err := n.Reap(testContext(t), []netip.Addr{alice}); err != nil {
		t.Fatal(err)
	}
}

// drops_NAT39: each packet that does not pass is counted, for one reason.
func drops_NAT39(t *testing.T, n Twin) {
	outbound := func(r nat.DropReason) nat.Drop { return nat.Drop{Reason: r, Direction: nat.DropOut} }
	full := nat.Entry{Inside: alice, Gate: nat.GateOpen, Block: nat.Block{Outside: eip, First: 60000, Last: 60000}}
	for _, tt := range []struct {
		state nat.Entry
		port  uint16
		want  nat.Drop // the zero value for a packet that passes
	}{
		{nat.Entry{Inside: alice}, 6000, outbound(nat.DropNoGate)},
		{full, 6001, nat.Drop{}},
		{full, 6002, outbound(nat.DropBlockFull)},
		{nat.Entry{Inside: alice, Gate: nat.GateDraining, Block: full.Block}, 6001, nat.Drop{}},
		{nat.Entry{Inside: alice, Gate: nat.GateDraining, Block: full.Block}, 6003, outbound(nat.DropDraining)},
		{nat.Entry{Inside: alice}, 6001, outbound(nat.DropNoGate)},
	} {
		apply(t, n, tt.state)
		before := dropsOf(t, n)
		_, err := n.Ask(netip.AddrPortFrom(alice, tt.port))
		if (err == nil) != (tt.want == nat.Drop{}) {
			t.Errorf("port %d with %v: %v", tt.port, tt.state, err)
		}
		testenv.Succeeds(t, func() error {
			for i, c := range dropsOf(t, n) {
				more := c.Packets - before[i].Packets
				if counted := c.Drop == tt.want; counted != (more > 0) {
					return fmt.Errorf("port %d with %v: %d packets are counted as %v, want %v", tt.port, tt.state, more, c.Drop, tt.want)
				}
			}
			return nil
		})
	}
	if _, err := n.Reap(testContext(t), []netip.Addr{alice}); err != nil {
		t.Fatal(err)
	}
}

// dropsOf reads the drops, and checks that all are there in their order.
func dropsOf(t *testing.T, n Contract) []nat.DropCount {
	t.Helper()
	counts, err := n.Drops(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	var listed []nat.Drop
	for _, c := range counts {
		listed = append(listed, c.Drop)
	}
	if !slices.Equal(listed, nat.Drops()) {
		t.Fatalf("counted are %v, want %v", listed, nat.Drops())
	}
	return counts
}

func idle(t *testing.T, n Twin) {
	drainIdle(n)
	err := n.Sessions(testContext(t), func(s Session) error { return n.KillSession(testContext(t), s) })
	if err != nil {
		t.Fatal(err)
	}
	for {
		select {
		case a := <-n.Idle():
			if a == bob && n.SessionCount(bob) == 0 {
				return
			}
		case <-testContext(t).Done():
			t.Fatal("nobody told that the last session had ended")
		}
	}
}

// limits_NAT28_NAT32 leaves bob without sessions.
func limits_NAT28_NAT32(t *testing.T, n Twin) {
	set := func(l nat.Limits) {
		t.Helper()
		list := []nat.PrefixLimits{{Inside: []netip.Prefix{netip.PrefixFrom(bob, 32)}, Limits: l}}
		if err := n.SetLimits(testContext(t), list); err != nil {
			t.Fatal(err)
		}
	}
	refused := func(port uint16, want nat.Limit) {
		t.Helper()
		port-- // the kernel's index counts later than it lets in, and a port that was let in stays so
		testenv.Succeeds(t, func() error {
			port++
			if seen, err := n.Ask(netip.AddrPortFrom(bob, port)); err == nil {
				return fmt.Errorf("a session began at the limit, seen from %v", seen)
			}
			list, err := n.Refusals(testContext(t))
			if err == nil && !slices.Equal(list, []nat.Refusal{{Inside: bob, Limit: want}}) {
				err = fmt.Errorf("refused are %v, want %v by %v", list, bob, want)
			}
			return err
		})
	}
	if list, err := n.Refusals(testContext(t)); len(list) > 0 || err != nil {
		t.Errorf("without limits %v are refused: %v", list, err)
	}
	set(nat.Limits{Sessions: 3})
	for port := uint16(5000); port < 5003; port++ {
		mustAsk(t, n, netip.AddrPortFrom(bob, port))
	}
	wantSessions(t, n, bob, 3)
	before := overLimit(t, n)
	refused(5100, nat.LimitSessions)
	testenv.Succeeds(t, func() error {
		if overLimit(t, n) == before {
			return errors.New("the refused session is not counted")
		}
		return nil
	})
	mustAsk(t, n, netip.AddrPortFrom(bob, 5000)) // what stands
	set(nat.Limits{UDPPorts: 3})
	refused(5200, nat.LimitUDPPorts)
	mustAsk(t, n, netip.AddrPortFrom(bob, 5001))
	set(nat.Limits{NewSessionsPerSecond: 1})
	wait := testContext(t)
	for port := uint16(6000); ; port++ {
		if _, err := n.Ask(netip.AddrPortFrom(bob, port)); err != nil {
			break
		}
		if wait.Err() != nil {
			t.Fatal("as many sessions begin as want to")
		}
	}
	if list, err := n.Refusals(testContext(t)); err != nil || !slices.Contains(list, nat.Refusal{Inside: bob, Limit: nat.LimitNewSessions}) {
		t.Errorf("refused are %v: %v", list, err)
	}
	if err := n.SetLimits(testContext(t), nil); err != nil {
		t.Fatal(err)
	}
	for port := uint16(7000); port < 7010; port++ {
		mustAsk(t, n, netip.AddrPortFrom(bob, port))
	}
	if list, err := n.Refusals(testContext(t)); len(list) > 0 || err != nil {
		t.Errorf("after the limits %v are refused: %v", list, err)
	}
	if err := n.Sessions(testContext(t), func(s Session) error { return n.KillSession(testContext(t), s) }); err != nil {
		t.Fatal(err)
	}
	wantSessions(t, n, bob, 0)
}

// overLimit reads the count of packets refused to subscribers at a limit.
func overLimit(t *testing.T, n Contract) uint64 {
	t.Helper()
	counts := dropsOf(t, n)
	return counts[slices.Index(nat.Drops(), nat.Drop{Reason: nat.DropOverLimit, Direction: nat.DropOut})].Packets
}

// drainIdle discards the addresses that earlier parts left in the channel.
func drainIdle(n Twin) {
	for {
		select {
		case <-n.Idle():
		default:
			return
		}
	}
}

// resized_NAT35: the range of new sessions grows, moves and shrinks under live sessions,
// which keep their ports. A block is vacant once none is left in it.
func resized_NAT35(t *testing.T, n Twin) {
	cutAndReap(t, n)
	old, wide, apart := blockOf(alice, nat.GateOpen, 0), blockOf(alice, nat.GateOpen, 0), blockOf(alice, nat.GateOpen, 4)
	wide.Last += 512
	apply(t, n, old)
	first := netip.AddrPortFrom(alice, 5100)
	seen := mustAsk(t, n, first)
	for i, e := range []nat.Entry{wide, apart, wide, old} {
		apply(t, n, e)
		if got, ok := n.EntryAt(alice); !ok || got != e {
			t.Errorf("the entry is %v, %t; want %v", got, ok, e)
		}
		if again := mustAsk(t, n, first); again != seen {
			t.Errorf("with new sessions in %d-%d, the old one is seen from %v, before from %v", e.First, e.Last, again, seen)
		}
		if s := mustAsk(t, n, netip.AddrPortFrom(alice, 5101+uint16(i))); !e.Contains(s.Addr(), nat.Port(s.Port())) {
			t.Errorf("a new session is seen from %v, want ports %d-%d", s, e.First, e.Last)
		}
	}
	wantVacant := func(b nat.Block, want bool) {
		t.Helper()
		if got, err := n.Vacant(testContext(t), alice, b); err != nil || got != want {
			t.Errorf("ports %d-%d are vacant: %t, %v; want %t", b.First, b.Last, got, err, want)
		}
	}
	wantVacant(old.Block, false)
	wantVacant(apart.Block, false)
	wantVacant(blockOf(alice, nat.GateOpen, 5).Block, true)
	err := n.SessionsOf(testContext(t), netip.PrefixFrom(alice, 32), func(s Session) error {
		if apart.Contains(s.Outside.Addr(), nat.Port(s.Outside.Port())) {
			return n.KillSession(testContext(t), s)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	wantVacant(apart.Block, true)
	wantVacant(old.Block, false)
	cutAndReap(t, n)
	wantVacant(old.Block, true)
}

// busy_NAT35: a subscriber is due once it has so many sessions, and again after so many more.
func busy_NAT35(t *testing.T, n Twin) {
	cutAndReap(t, n)
	apply(t, n, blockOf(alice, nat.GateOpen, 0))
	port := uint16(5200)
	begin := func(sessions int) {
		t.Helper()
		for range sessions {
			mustAsk(t, n, netip.AddrPortFrom(alice, port))
			port++
		}
	}
	due := func(want bool) {
		t.Helper()
		var list []netip.Addr
		wait := twinPatience
		if want {
			wait = 10 * time.Second
		}
		select {
		case <-n.Begun():
			list = n.ListBegun()
		case <-time.After(wait):
		}
		if got := slices.Contains(list, alice); got != want {
			t.Fatalf("with %d sessions alice is due: %t, want %t", port-5200, got, want)
		}
	}
	n.CountBegun(3)
	defer n.CountBegun(0)
	begin(2)
	due(false)
	begin(1)
	due(true)
	n.LookAgain(alice, 4)
	begin(3)
	due(false)
	begin(1)
	due(true)
	if got := n.PortUse(alice).Largest(); got != 7 {
		t.Errorf("alice uses %d ports, want 7", got)
	}
	n.LookAgain(alice, 100)
	n.CountBegun(2)
	due(true) // all are, with another bound
	cutAndReap(t, n)
}

// cutAndReap closes alice's gate, and deletes her sessions.
func cutAndReap(t *testing.T, n Twin) {
	t.Helper()
	apply(t, n, nat.Entry{Inside: alice})
	if proofs, err := n.Reap(testContext(t), []netip.Addr{alice}); err != nil || len(proofs) != 1 {
		t.Fatal(proofs, err)
	}
}

func refused(t *testing.T, n Twin) {
	for name, e := range map[string]nat.Entry{
		"IPv6 inside":   {Inside: netip.MustParseAddr("2001:db8::1")},
		"no inside":     {Gate: nat.GateOpen, Block: nat.Block{Outside: eip, First: 1024, Last: 1535}},
		"unknown gate":  {Inside: alice, Gate: 9, Block: nat.Block{Outside: eip, First: 1024, Last: 1535}},
		"no outside":    {Inside: alice, Gate: nat.GateOpen, Block: nat.Block{First: 1024, Last: 1535}},
		"empty block":   {Inside: alice, Gate: nat.GateOpen, Block: nat.Block{Outside: eip, First: 1535, Last: 1024}},
		"block of zero": {Inside: alice, Gate: nat.GateDraining, Block: nat.Block{Outside: eip, Last: 511}},
	} {
		err := n.Apply(testContext(t), []nat.Entry{blockOf(alice, nat.GateOpen, 0), e})
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	wantEntries(t, n, blockOf(bob, nat.GateOpen, 1)) // a refused call changes nothing
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if err := n.Apply(ended, []nat.Entry{blockOf(alice, nat.GateOpen, 0)}); !errors.Is(err, context.Canceled) {
		t.Errorf("Apply after its context ended returned %v", err)
	}
}

func bulk(t *testing.T, n Twin) {
	const size = 10_000
	entries := make([]nat.Entry, size)
	for i := range entries {
		entries[i] = blockOf(netip.AddrFrom4([4]byte{100, 65, byte(i >> 8), byte(i)}), nat.GateOpen, i%100)
	}
	all := append(slices.Clone(entries), blockOf(bob, nat.GateOpen, 1))
	slices.SortFunc(all, func(a, b nat.Entry) int { return a.Inside.Compare(b.Inside) })
	for range 2 {
		apply(t, n, entries...)
		wantEntries(t, n, all...)
	}
	// Of several entries for one address the last counts.
	apply(t, n, blockOf(bob, nat.GateOpen, 5), nat.Entry{Inside: bob}, blockOf(bob, nat.GateDraining, 7))
	for i := range entries {
		entries[i].Gate = nat.GateClosed
	}
	for range 2 {
		apply(t, n, entries...)
		wantEntries(t, n, blockOf(bob, nat.GateDraining, 7))
	}
}

func reconfigured(t *testing.T, n Twin) {
	if err := n.SetTimeouts(testContext(t), nat.Timeouts{UDP: time.Second}); err == nil {
		t.Error("timeouts of zero were accepted")
	}
	if err := n.SetPrefixes(testContext(t), nil, nil, Mappings{}); err == nil {
		t.Error("no inside prefixes were accepted")
	}
	short := nat.Timeouts{TCPEstablished: 9 * time.Second, TCPTransitory: 9 * time.Second, UDP: 9 * time.Second, ICMP: 9 * time.Second}
	if err := n.SetTimeouts(testContext(t), short); err != nil {
		t.Fatal(err)
	}
	inside := []netip.Prefix{netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("10.0.0.0/8")}
	if err := n.SetPrefixes(testContext(t), inside, []netip.Prefix{pool}, Mappings{}); err != nil {
		t.Fatal(err)
	}
	wantEntries(t, n, blockOf(bob, nat.GateDraining, 7))
	apply(t, n, blockOf(bob, nat.GateOpen, 7))
	mustAsk(t, n, netip.AddrPortFrom(bob, 5000))
	err := n.Sessions(testContext(t), func(s Session) error {
		if s.Inside.Addr() == bob && s.ExpiresIn > short.UDP {
			return fmt.Errorf("session of after the change expires in %v", s.ExpiresIn)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// setMappings changes the mappings alone: the prefixes are those of the part before.
func setMappings(t *testing.T, n Twin, m Mappings) error {
	t.Helper()
	inside := []netip.Prefix{netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("10.0.0.0/8")}
	return n.SetPrefixes(testContext(t), inside, []netip.Prefix{pool}, m)
}

func mapped_NAT07_DEL02(t *testing.T, n Twin) {
	if err := setMappings(t, n, Mappings{EndpointIndependent: []netip.Prefix{pool}}); err == nil {
		t.Error("mappings without a bound were accepted")
	}
	if err := n.SetTimeouts(testContext(t), testTimeouts); err != nil {
		t.Fatal(err)
	}
	restrict := Mappings{EndpointIndependent: []netip.Prefix{pool}, Most: 100}
	open := restrict
	open.Open = open.EndpointIndependent
	inside := netip.AddrPortFrom(alice, 5100)
	for _, m := range []Mappings{restrict, open} {
		if err := setMappings(t, n, m); err != nil {
			t.Fatal(err)
		}
		apply(t, n, blockOf(alice, nat.GateOpen, 0))
		seen := mustAsk(t, n, inside)
		if err := n.Reach(inside, seen); (err == nil) != (len(m.Open) > 0) {
			t.Errorf("with %+v another host reaches the mapping: %v", m, err)
		}
		apply(t, n, blockOf(alice, nat.GateDraining, 0))
		if err := n.Reach(inside, seen); err == nil {
			t.Error("another host reaches a draining subscriber")
		}
		apply(t, n, nat.Entry{Inside: alice})
		if err := n.Reach(inside, seen); err == nil {
			t.Error("another host reaches a cut subscriber")
		}
		proofs, err := n.Reap(testContext(t), []netip.Addr{alice})
		if err != nil || len(proofs) != 1 || proofs[0].Elements != MappingElements {
			t.Errorf("receipts are %+v, %v; want one with %d elements", proofs, err, MappingElements)
		}
	}
	if err := setMappings(t, n, Mappings{}); err != nil {
		t.Fatal(err)
	}
}

// static_DEL02_DEL03: a mapping of an entry lets everybody in, gives the flows of its inside
// port its outside port, and goes with the gate.
func static_DEL02_DEL03(t *testing.T, n Twin) {
	mapped := func(e nat.Entry, list ...nat.Forward) nat.Entry {
		e.Forwards = nat.NewForwards(list)
		return e
	}
	at := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(eip, port) }
	game := nat.Forward{Protocol: unix.IPPROTO_UDP, InsidePort: 5200, Outside: at(61000)}
	inside := netip.AddrPortFrom(alice, 5200)
	open := blockOf(alice, nat.GateOpen, 0)
	if err := n.Apply(testContext(t), []nat.Entry{mapped(open, game)}); err == nil {
		t.Error("a mapping was accepted without ports for it")
	}
	if err := n.SetStatic(testContext(t), []StaticPorts{{Outside: []netip.Prefix{pool}, First: 61001, Last: 61000}}); err == nil {
		t.Error("a range without ports was accepted")
	}
	if err := n.SetStatic(testContext(t), []StaticPorts{{Outside: []netip.Prefix{pool}, First: 61000, Last: 61999}}); err != nil {
		t.Fatal(err)
	}
	apply(t, n, open, nat.Entry{Inside: bob})
	if err := n.Reach(inside, game.Outside); err == nil {
		t.Error("another host reaches a port without a mapping")
	}
	apply(t, n, mapped(open, game))
	wantEntries(t, n, mapped(open, game))
	if err := n.Reach(inside, game.Outside); err != nil {
		t.Errorf("another host does not reach the mapping: %v", err)
	}
	if seen := mustAsk(t, n, inside); seen != game.Outside {
		t.Errorf("a flow of the mapped port is seen from %v, want %v", seen, game.Outside)
	}
	if seen := mustAsk(t, n, netip.AddrPortFrom(alice, 5201)); !open.Contains(seen.Addr(), nat.Port(seen.Port())) {
		t.Errorf("a flow of another port is seen from %v, want the block", seen)
	}

	moved := game
	moved.Outside = at(61001)
	apply(t, n, mapped(open, moved))
	wantEntries(t, n, mapped(open, moved))
	if err := n.Reach(inside, game.Outside); err == nil {
		t.Error("the former port of a mapping is still open")
	}
	if err := n.Reach(inside, moved.Outside); err != nil {
		t.Errorf("another host does not reach the moved mapping: %v", err)
	}

	apply(t, n, mapped(blockOf(bob, nat.GateOpen, 1), moved)) // an endpoint is taken over
	wantEntries(t, n, open, mapped(blockOf(bob, nat.GateOpen, 1), moved))
	if err := n.Reach(netip.AddrPortFrom(bob, 5200), moved.Outside); err != nil {
		t.Errorf("another host does not reach the new holder: %v", err)
	}
	apply(t, n, mapped(open, game, moved), blockOf(bob, nat.GateOpen, 1)) // one inside port has one mapping
	wantEntries(t, n, mapped(open, game), blockOf(bob, nat.GateOpen, 1))
	apply(t, n, mapped(open, game), nat.Entry{Inside: bob})

	n.Tamper(mapped(open))
	<-n.Changed()
	wantEntries(t, n, open)
	apply(t, n, mapped(open, game))
	n.Tamper(mapped(open, moved))
	<-n.Changed()
	wantEntries(t, n, mapped(open, moved))
	apply(t, n, mapped(open, game))

	if err := n.Apply(testContext(t), []nat.Entry{mapped(blockOf(alice, nat.GateDraining, 0), game)}); err == nil {
		t.Error("a draining gate may have mappings")
	}
	apply(t, n, blockOf(alice, nat.GateDraining, 0))
	if err := n.Reach(inside, game.Outside); err == nil {
		t.Error("another host reaches a draining subscriber")
	}
	apply(t, n, mapped(open, game))
	apply(t, n, nat.Entry{Inside: alice})
	wantEntries(t, n)
	if err := n.Reach(inside, game.Outside); err == nil {
		t.Error("another host reaches a cut subscriber")
	}
	for _, a := range []netip.Addr{alice, bob} {
		if _, err := n.Reap(testContext(t), []netip.Addr{a}); err != nil {
			t.Fatal(err)
		}
		wantSessions(t, n, a, 0)
	}
	if err := n.SetStatic(testContext(t), nil); err != nil {
		t.Fatal(err)
	}
}

func mustAsk(t *testing.T, n Twin, inside netip.AddrPort) netip.AddrPort {
	t.Helper()
	var errs []error
	for range 10 {
		seen, err := n.Ask(inside)
		if err == nil {
			return seen
		}
		errs = append(errs, err)
	}
	t.Fatalf("%v gets no answer: %v", inside, errors.Join(errs...))
	return netip.AddrPort{}
}

func wantEntries(t *testing.T, n Contract, want ...nat.Entry) {
	t.Helper()
	if err := n.LearnRest(testContext(t)); err != nil {
		t.Fatal(err)
	}
	got := entriesOf(t, n, 1000)
	if !slices.Equal(got, want) {
		t.Errorf("%d entries stand, want %d: %.300s, want %.300s", len(got), len(want), fmt.Sprint(got), fmt.Sprint(want))
	}
}

// entriesOf lists all entries by pages of n, and checks that each is found by its
// address.
func entriesOf(t testing.TB, k Contract, n int) (all []nat.Entry) {
	t.Helper()
	for from := (netip.Addr{}); ; {
		page, next := k.EntriesFrom(testContext(t), from, n)
		for _, e := range page {
			if at, ok := k.EntryAt(e.Inside); !ok || at != e {
				t.Errorf("at %v is %v, %t, want %v", e.Inside, at, ok, e)
			}
		}
		all = append(all, page...)
		if !next.IsValid() {
			break
		}
		if len(page) != n || next.Compare(page[n-1].Inside) <= 0 {
			t.Fatalf("a page of %d ends at %v, the next begins at %v", len(page), page[len(page)-1], next)
		}
		from = next
	}
	if k.Elements() != len(all) {
		t.Errorf("%d elements, %d are listed", k.Elements(), len(all))
	}
	return all
}

func wantReaped(t *testing.T, n Contract, inside netip.Addr, deleted int) {
	t.Helper()
	before := time.Now()
	receipts, err := n.Reap(testContext(t), []netip.Addr{inside})
	if err != nil {
		t.Fatal(err)
	}
	if len(receipts) != 1 || receipts[0].Inside != inside || receipts[0].Deleted != deleted || receipts[0].Proof != nat.ProofIndex || receipts[0].At.Before(before) {
		t.Errorf("receipts are %+v, want one of %v with %d deleted", receipts, inside, deleted)
	}
}

// wantSessions waits for the count, which follows the kernel's events.
func wantSessions(t *testing.T, n Contract, inside netip.Addr, want int) {
	t.Helper()
	testenv.Succeeds(t, func() error {
		if got := n.SessionCount(inside); got != want {
			return fmt.Errorf("%v has %d sessions, want %d", inside, got, want)
		}
		return nil
	})
}

// timeoutsOfGroups_NAT05 gives alice's group a timeout of its own, and then one of the port
// that Ask sends to.
func timeoutsOfGroups_NAT05(t *testing.T, n Twin) {
	apply(t, n, blockOf(alice, nat.GateOpen, 0), blockOf(bob, nat.GateOpen, 1))
	if err := n.SetTimeouts(testContext(t), testTimeouts); err != nil {
		t.Fatal(err)
	}
	groups := []nat.GroupTimeouts{{Inside: []netip.Prefix{netip.PrefixFrom(alice, 32)}, Own: nat.Timeouts{UDP: 600 * time.Second}}}
	for i, want := range []time.Duration{600 * time.Second, 20 * time.Second} {
		if i == 1 {
			groups[0].Ports = []nat.PortTimeout{{Protocol: unix.IPPROTO_UDP, Port: n.Remote.Port(), Timeout: want}}
		}
		if err := n.SetGroupTimeouts(testContext(t), groups); err != nil {
			t.Fatal(err)
		}
		from := uint16(5100 + i)
		for inside, want := range map[netip.Addr]time.Duration{alice: want, bob: testTimeouts.UDP} {
			mustAsk(t, n, netip.AddrPortFrom(inside, from))
			wantExpiresIn(t, n, netip.AddrPortFrom(inside, from), want)
		}
	}
	groups[0].Own.UDP = 1500 * time.Millisecond
	if err := n.SetGroupTimeouts(testContext(t), groups); err == nil {
		t.Error("half a second was taken")
	}
	if err := n.SetGroupTimeouts(testContext(t), nil); err != nil {
		t.Fatal(err)
	}
	mustAsk(t, n, netip.AddrPortFrom(alice, 5102))
	wantExpiresIn(t, n, netip.AddrPortFrom(alice, 5102), testTimeouts.UDP)
}

// wantExpiresIn checks the time left of the session from an inside port.
func wantExpiresIn(t *testing.T, n Contract, inside netip.AddrPort, want time.Duration) {
	t.Helper()
	found := false
	err := n.Sessions(testContext(t), func(s Session) error {
		if s.Inside == inside {
			found = true
			if s.ExpiresIn > want || s.ExpiresIn < want-5*time.Second {
				t.Errorf("the session from %v expires in %v, want %v", inside, s.ExpiresIn, want)
			}
		}
		return nil
	})
	if err != nil || !found {
		t.Errorf("session from %v: found %t, %v", inside, found, err)
	}
}
