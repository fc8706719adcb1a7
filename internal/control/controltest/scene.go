package controltest

import (
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/audit"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/portuse"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// Now is the time of the scene.
var Now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// Scene returns a backend with some data of each kind: alice online by RADIUS
// with sessions, bob waiting for a block, and carol's two blocks held.
func Scene() *Backend {
	alice := binding("100.64.0.7", "198.51.100.1", 1024, nat.Active, "alice", "0A01")
	alice.Sessions = 2
	leased := alice
	leased.PortsMeasured, leased.PortsInUse, leased.PortsPeak = true, nat.PortUse{TCP: 1, ICMP: 1}, nat.PortUse{TCP: 211, UDP: 40, ICMP: 1}
	carol := binding("100.64.0.9", "198.51.100.1", 1536, nat.Held, "carol", "0A02")
	carol.Blocks, _ = carol.With(nat.Block{Outside: carol.Outside, First: 4096, Last: 4607})
	carol.ReleasedAt = Now.Add(-30 * time.Second)
	carol.HoldUntil = Now.Add(90 * time.Second)
	carol.Receipt = &nat.Receipt{
		CutAt: Now.Add(-29990 * time.Millisecond), ReapedAt: Now.Add(-29980 * time.Millisecond),
		ReleasedAt: Now.Add(-29980 * time.Millisecond), Elements: 2, Deleted: 14, Proof: nat.ProofIndex,
		End: subscriber.End{Reason: subscriber.ReasonStop, Cause: 2},
	}
	b := &Backend{
		Broadcaster: inspect.NewBroadcaster(inspect.BroadcasterOptions{Run: 1, Octets: 64 << 10, Keep: time.Minute}),
		Inside:      netip.MustParsePrefix("100.64.0.0/10"),
		Online:      []inspect.Subscriber{online("100.64.0.7", "alice", "0A01", &alice), waiting("100.64.0.8", "bob", "0A03")},
		Leases:      []inspect.Binding{leased, carol},
		Flows:       flows(),
		Dropped: []nat.DropCount{
			{Drop: nat.Drop{Reason: nat.DropNoGate, Direction: nat.DropOut}, Packets: 12, Bytes: 720},
			{Drop: nat.Drop{Reason: nat.DropOverLimit, Direction: nat.DropOut}, Packets: 88, Bytes: 5_280},
			{Drop: nat.Drop{Reason: nat.DropBlockFull, Direction: nat.DropOut}, Packets: 3},
			{Drop: nat.Drop{Reason: nat.DropNoMapping, Direction: nat.DropIn}, Packets: 4_500_000, Bytes: 270_000_000},
			{Drop: nat.Drop{Reason: nat.DropFiltered, Direction: nat.DropIn}},
		},
		Blocks: []inspect.Pool{
			{Usage: lsn.Usage{Group: "default", Outside: netip.MustParsePrefix("198.51.100.0/28"), Total: 2016, Used: 1, Held: 2, Free: 2013}, Origin: inspect.PoolConfigured},
		},
		Ports: portUse(),
		Sizes: blockSizes(),
		Live: inspect.Settings{
			Removal: inspect.RemovalOn,
			IdleTimeouts: nat.Timeouts{
				TCPEstablished: 7440 * time.Second, TCPTransitory: 240 * time.Second,
				UDP: 300 * time.Second, ICMP: 60 * time.Second,
			},
		},
		Glance:  glance(),
		Waiting: waits(),
		Routers: routers(),
		Mapped:  mapped(),
		Audits:  audits(),
		Differs: []inspect.Drift{{Kind: inspect.DriftElementOrphaned, Group: "default", Inside: netip.MustParseAddr("100.64.9.9"), What: "gate is open without a binding; remove it"}},
	}
	b.Ended = ended(carol)
	b.Told = told(b)
	b.Busy = []inspect.Top{{Inside: alice.Inside, Value: 2, Sessions: 2, Who: b.Online[0]}, {Inside: b.Online[1].Inside, Value: 1, Sessions: 1, Who: b.Online[1]}}
	return b
}

// ended are the end of carol, one of alice that a restart of her BNG took, and one of dave, whose line was
// lost, and who came back in time.
func ended(carol inspect.Binding) []inspect.Ending {
	end := func(inside, user, session string, before time.Duration, why subscriber.End) inspect.Ending {
		s := online(inside, user, session, nil)
		s.StartedAt = Now.Add(-before - 26*time.Hour)
		return inspect.Ending{Number: uint64(Now.Add(-before).UnixMicro()), Record: s.Record, End: why, At: Now.Add(-before)}
	}
	last := end("100.64.0.9", "carol", "0A02", 30*time.Second, carol.Receipt.End)
	last.Blocks, last.Receipt = carol.Blocks, carol.Receipt
	back := end("100.64.0.10", "dave", "0A09", time.Hour, subscriber.End{Reason: subscriber.ReasonStop, Cause: 2})
	back.Blocks = nat.Blocks{Block: nat.Block{Outside: carol.Outside, First: 8192, Last: 8703}}
	back.ResumedAt = back.At.Add(12 * time.Second)
	restart := end("100.64.0.7", "alice", "09FF", 26*time.Hour, subscriber.End{Reason: subscriber.ReasonNASRestart})
	restart.Blocks = nat.Blocks{Block: nat.Block{Outside: carol.Outside, First: 1024, Last: 1535}}
	restart.Receipt = &nat.Receipt{
		CutAt: restart.At.Add(4 * time.Millisecond), ReapedAt: restart.At.Add(6 * time.Millisecond), ReleasedAt: restart.At.Add(6 * time.Millisecond),
		Elements: 2, Deleted: 87, Proof: nat.ProofIndex, End: restart.End,
	}
	return []inspect.Ending{last, back, restart}
}

// told are explanations: of alice, who is near a limit and was refused sessions at it, of bob, who
// waits, and of carol, who is offline.
func told(b *Backend) []inspect.Explanation {
	since := Now.Add(-72 * time.Hour)
	limits := []inspect.LimitUse{
		{Limit: "sessions", Most: 100, Used: 2, Measured: true},
		{Limit: "new_sessions_per_second", Most: 50},
		{Limit: "tcp_ports", Most: 1, Used: 1, Measured: true, RefusedAt: Now.Add(-40 * time.Second)},
		{Limit: inspect.LimitBlockPorts, Most: 512, Used: 1, Measured: true},
	}
	alice := inspect.Explanation{
		Key: b.Online[0].Key, Subscriber: &b.Online[0], Binding: &b.Leases[0], NAS: &b.Routers[0], Limits: limits,
		Sessions: nat.SessionCounts{TCP: 1, ICMP: 1, Began: 2}, LastEnding: &b.Ended[2], Since: since, Mappings: b.Mapped[1:2],
	}
	bob := inspect.Explanation{Key: b.Online[1].Key, Subscriber: &b.Online[1], NAS: &b.Routers[0], Since: since}
	carol := inspect.Explanation{Key: b.Ended[0].Record.Key, LastEnding: &b.Ended[0], NAS: &b.Routers[0], Since: since}
	list := []inspect.Explanation{alice, bob, carol}
	for i := range list {
		for _, d := range b.Dropped {
			if list[i].Concerns(d.Drop) {
				list[i].Drops = append(list[i].Drops, d)
			}
		}
	}
	return list
}

// audits are a deletion, and the end of a session in the kernel.
func audits() Audits {
	noc := audit.Entry{Trail: audit.DaemonTrail, At: Now.Add(-time.Minute), Node: "cgn1", Actor: "san:spiffe://isp/noc", Role: "operator", Source: "192.0.2.7:41000", Method: "TerminateSessions"}
	order, end := noc, noc
	order.Number, order.Outcome, order.Part, order.Count, order.Keys = 1, audit.Ordered, 1, 2, []string{"inside=100.64.0.7/32"}
	end.Number, end.Outcome, end.Part, end.Count, end.Of, end.At = 2, audit.Done, 2, 2, 1, Now.Add(-59*time.Second)
	return Audits{
		Entries: []audit.Entry{end, order, {
			Trail: "default", Number: 1, At: Now.Add(-time.Hour), Node: "cgn1", Actor: "user:0", Role: "admin", Source: "unix",
			Method: "DeleteSubscribers", Group: "default", RequestID: "7c9e", Reason: "ticket 4711", Part: 1, Count: 4, Outcome: audit.Done,
			Keys: []string{"100.64.0.20", "100.64.0.21", "100.64.0.22", "100.64.0.23"},
		}},
		Checks: []audit.Verified{
			{Trail: audit.DaemonTrail, First: 1, Last: audit.Head{Number: 2, Hash: "5e0a"}, Entries: 2},
			{Trail: "default", First: 1, Last: audit.Head{Number: 1, Hash: "91c3"}, Entries: 1},
		},
	}
}

// portUse is that of alice, the only one with ports.
func portUse() []inspect.PortUse {
	pool := inspect.PoolPorts{
		Outside: netip.MustParsePrefix("198.51.100.0/28"),
		Current: nat.PortUse{TCP: 1, ICMP: 1}, Peak: nat.PortUse{TCP: 300, UDP: 52, ICMP: 1},
	}
	pool.Counts.Add(1)
	return []inspect.PortUse{{Group: "default", Pools: []inspect.PoolPorts{pool}}}
}

// blockSizes are made from some days with 40,000 bindings.
func blockSizes() []inspect.BlockSizes {
	b := inspect.BlockSizes{Group: "default"}
	b.Since, b.Until = Now.Add(-72*time.Hour), Now
	b.Bindings, b.Full, b.BlockSize, b.Live = 40_000, 4, 512, 1
	b.Peaks.Add(100)
	b.Advice = portuse.Advise(&b.Observation, 0.001, func(size int) int { return 16 * 64512 / size })
	b.Recommended = 256
	for i, n := range []int{31_007, 9_120, 36, 6, 0, 0, 0, 0} {
		s := &b.Sizes[i]
		s.Overflowed, s.Share = n, float64(n)/float64(b.Bindings)
	}
	return []inspect.BlockSizes{b}
}

// mapped are a mapping of alice, one of the configuration, and one that has ended.
func mapped() []inspect.Mapping {
	at := func(protocol uint8, port uint16) nat.Endpoint {
		return nat.Endpoint{Protocol: protocol, AddrPort: netip.AddrPortFrom(netip.MustParseAddr("198.51.100.1"), port)}
	}
	ssh := inspect.Mapping{Mapping: nat.Mapping{
		Group: "default", Kind: nat.MappingStatic, Owner: nat.Owner{UserName: "alice"}, InsidePort: 22, Outside: at(nat.ProtocolTCP, 60022),
		CreatedAt: Now.Add(-time.Hour), ExpiresAt: Now.Add(23 * time.Hour),
	}, Inside: netip.MustParseAddr("100.64.0.7"), InForce: true}
	game := inspect.Mapping{Mapping: nat.Mapping{
		Group: "default", Kind: nat.MappingStatic, Configured: true, Owner: nat.Owner{Inside: netip.MustParseAddr("100.64.0.8")}, InsidePort: 27015, Outside: at(nat.ProtocolUDP, 60015),
	}}
	web := inspect.Mapping{Mapping: nat.Mapping{
		Group: "default", Kind: nat.MappingStatic, Owner: nat.Owner{UserName: "carol"}, InsidePort: 80, Outside: at(nat.ProtocolTCP, 60080),
		CreatedAt: Now.Add(-2 * time.Hour), HoldUntil: Now.Add(time.Minute),
	}}
	return []inspect.Mapping{game, ssh, web}
}

// waits are removals of each kind.
func waits() []inspect.Removal {
	kinds := []inspect.RemovalKind{inspect.RemovalHeld, inspect.RemovalGrace, inspect.RemovalObserved}
	why := []subscriber.Reason{subscriber.ReasonExpired, subscriber.ReasonStop, subscriber.ReasonNASRestart}
	var list []inspect.Removal
	for i, inside := range []string{"100.64.0.7", "100.64.0.20", "100.64.0.21"} {
		s := online(inside, "alice", "0A01", nil)
		list = append(list, inspect.Removal{
			Kind: kinds[i], Record: s.Record, Reason: why[i], Since: Now.Add(-10 * time.Minute), Sessions: 2,
		})
	}
	list[1].DueAt = Now.Add(5 * time.Minute)
	return list
}

// routers returns a normal NAS, one reported through two clients, one whose
// clock is hours behind, and one that never set its clock. Another one has no
// recent packets, and two have a factory name.
func routers() []inspect.NAS {
	router := func(client, name string, subscribers int) inspect.NAS {
		return inspect.NAS{
			NASKey: inspect.NASKey{Client: client, Name: name}, Subscribers: subscribers, LastHeard: Now.Add(-3 * time.Second),
			Clock: inspect.NASClock{Offset: -time.Second, Known: true},
		}
	}
	list := []inspect.NAS{
		router("bng1", "bng1.example", 2), router("core", "bng2.example", 812), router("core", "bng3.example", 40),
		{NASKey: inspect.NASKey{Client: "core", Name: "bng4.example"}, Subscribers: 7}, router("proxy2", "bng1.example", 0),
		router("site1", "MikroTik", 3), router("site2", "MikroTik", 5),
	}
	list[0].LastRestart = Now.Add(-26 * time.Hour)
	list[0].Endings = inspect.NASEndings{Subscribers: 212, First: Now.Add(-26 * time.Hour), Last: Now.Add(-26*time.Hour + 2*time.Second)}
	list[1].Clock.Offset = -8 * time.Hour
	list[1].Refused = map[string]uint64{"outdated": 3, "stale": 1_204}
	list[2].Clock = inspect.NASClock{Offset: Now.Sub(time.Unix(0, 0)) * -1, Known: true, Unheeded: true}
	list[4].SameAs = list[0].NASKey
	return list
}

func online(inside, user, session string, b *inspect.Binding) inspect.Subscriber {
	return inspect.Subscriber{
		Record: subscriber.Record{
			Key:              subscriber.Key{Group: "default", Inside: netip.MustParseAddr(inside)},
			SessionID:        subscriber.SessionID{Client: "bng1", NAS: "bng1.example", AcctSessionID: session},
			UserName:         user,
			CallingStationID: "02:00:00:00:00:07",
			Classes:          subscriber.Classes{Class: "gold\x00", MoreClasses: []string{"v6"}},
			NASAddress:       netip.MustParseAddr("192.0.2.1"),
			StartedAt:        Now.Add(-26 * time.Hour),
			UpdatedAt:        Now.Add(-5 * time.Minute),
			ExpiresAt:        Now.Add(40 * time.Minute),
			Counters:         subscriber.Counters{InputOctets: 5_000_000, OutputOctets: 7_500_000_000},
			IPv6: subscriber.IPv6{
				FramedIPv6Prefixes: []netip.Prefix{netip.MustParsePrefix("2001:db8:0:7::/64")},
				DelegatedPrefixes:  []netip.Prefix{netip.MustParsePrefix("2001:db8:700::/56"), netip.MustParsePrefix("2001:db8:800::/48")},
			},
		},
		Binding: b,
	}
}

func waiting(inside, user, session string) inspect.Subscriber {
	s := online(inside, user, session, nil)
	s.Pending = true
	return s
}

func binding(inside, outside string, first nat.Port, state nat.State, user, session string) inspect.Binding {
	return inspect.Binding{Binding: nat.Binding{
		Group:       "default",
		Blocks:      nat.Blocks{Block: nat.Block{Outside: netip.MustParseAddr(outside), First: first, Last: first + 511}},
		Holder:      nat.Holder{Inside: netip.MustParseAddr(inside), UserName: user, AcctSessionID: session},
		State:       state,
		AllocatedAt: Now.Add(-26 * time.Hour),
	}}
}

func flows() []inspect.Session {
	return []inspect.Session{
		{Group: "default", Session: nat.Session{
			Protocol: 6, State: "ESTABLISHED", Direction: nat.Outbound,
			Inside:  netip.MustParseAddrPort("100.64.0.7:40000"),
			Outside: netip.MustParseAddrPort("198.51.100.1:1100"),
			Remote:  netip.MustParseAddrPort("203.0.113.5:443"),
			Packets: 120, Bytes: 98_304, ExpiresIn: 2 * time.Hour,
		}},
		{Group: "default", Session: nat.Session{
			Protocol: 1, State: "REPLIED", Direction: nat.Outbound,
			Inside:  netip.MustParseAddrPort("100.64.0.7:77"),
			Outside: netip.MustParseAddrPort("198.51.100.1:1101"),
			Remote:  netip.MustParseAddrPort("203.0.113.6:0"),
			Packets: 2, Bytes: 168, ExpiresIn: 58 * time.Second,
		}},
	}
}

func glance() inspect.Status {
	return inspect.Status{
		Node: "cgn1", Version: "v0.1.0", StartedAt: Now.Add(-72 * time.Hour), DatabaseUp: true,
		Settings: inspect.Settings{Removal: inspect.RemovalOn}, Sessions: 2,
		Groups: []inspect.GroupStatus{{
			Name: "default", Subscribers: 2, Pending: 1, Active: 1, Held: 1,
			Quarantined: 12, QuarantinedUntil: Now.Add(90 * time.Second),
		}},
		ReconciledAt: Now.Add(-20 * time.Second), Drifts: 1,
	}
}
