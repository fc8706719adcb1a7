package main

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/rig"
)

// patience is the duration of an attempt that must fail.
const patience = 700 * time.Millisecond

// A stage is a rig with the output of the demo.
type stage struct {
	*rig.Rig
	*show
}

func (s *stage) start(ctx context.Context, who rig.Session) error {
	b, err := s.Online(ctx, who)
	if err != nil {
		return err
	}
	s.seen("%s (%s) has %s, ports %d-%d", who.User, who.Inside, b.OutsideAddress, b.FirstPort, b.LastPort)
	return nil
}

// closed checks on the network that no packet of the subscriber gets out.
func (s *stage) closed(ctx context.Context, who rig.Session) error {
	capture, err := s.Lab.CGN.Capture(netlab.OutsideInterface)
	if err != nil {
		return err
	}
	defer capture.Close()
	try, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if seen, err := s.Lab.Ping(try, who.Inside, 99); err == nil {
		return fmt.Errorf("%s's ping was answered, seen from %s", who.User, seen.Source)
	}
	if err := capture.Settle(ctx, s.Lab.CGN, s.Lab.Remotes[0]); err != nil {
		return err
	}
	leaked := capture.Matching(func(p netlab.Packet) bool {
		return p.Mentions(who.Inside) || p.Outgoing && p.Protocol == netlab.ICMP
	})
	if len(leaked) > 0 {
		return fmt.Errorf("%d packets of %s reached the internet side: %+v", len(leaked), who.User, leaked[0])
	}
	s.seen("wire: a ping of %s is not answered, and no packet of it is seen on the internet side", who.User)
	return nil
}

// traffic checks that packets of all protocols come from the subscriber's
// outside address and ports.
func (s *stage) traffic(ctx context.Context, who rig.Session) error {
	b, err := s.AwaitState(ctx, who.Inside, "ACTIVE")
	if err != nil {
		return err
	}
	echo, err := s.Lab.StartEcho(netip.AddrPortFrom(s.Lab.Remotes[0], 0))
	if err != nil {
		return err
	}
	local := netip.AddrPortFrom(who.Inside, 0)
	tcp, err := s.Lab.Subscriber.AskTCP(ctx, local, echo.Addr())
	if err != nil {
		return err
	}
	udp, err := s.Lab.Subscriber.AskUDP(ctx, local, echo.Addr())
	if err != nil {
		return err
	}
	ping, err := s.Lab.Ping(ctx, who.Inside, 7)
	if err != nil {
		return err
	}
	for _, x := range []struct {
		name string
		seen netip.AddrPort
	}{{"tcp", tcp}, {"udp", udp}, {"ping", netip.AddrPortFrom(ping.Source, ping.ID)}} {
		if !b.Covers(x.seen) {
			return fmt.Errorf("%s is seen from %s, want %s ports %d-%d", x.name, x.seen, b.OutsideAddress, b.FirstPort, b.LastPort)
		}
		s.seen("wire: %s is seen from %s", x.name, x.seen)
	}
	return nil
}

// open opens a long-lived TCP flow.
func (s *stage) open(ctx context.Context, who rig.Session) (*netlab.Flow, error) {
	f, err := s.Lab.OpenFlow(ctx, netip.AddrPortFrom(who.Inside, 0))
	if err != nil {
		return nil, err
	}
	return f, s.lives(f, who)
}

func (s *stage) lives(f *netlab.Flow, who rig.Session) error {
	if out, in := f.Probe(5 * time.Second); !out || !in {
		return fmt.Errorf("%s's TCP flow passes outbound %t, inbound %t; want both", who.User, out, in)
	}
	s.seen("wire: %s's TCP flow (%s) passes in both directions", who.User, f.Source())
	return nil
}

func (s *stage) dead(f *netlab.Flow, who rig.Session) error {
	if out, in := f.Probe(patience); out || in {
		return fmt.Errorf("%s's TCP flow still passes outbound %t, inbound %t", who.User, out, in)
	}
	s.seen("wire: %s's TCP flow is dead in both directions, retransmissions do not bring it back", who.User)
	return nil
}

// showKernel prints the kernel state of a subscriber.
func (s *stage) showKernel(ctx context.Context, who rig.Session) error {
	t, err := s.Trace(ctx, who.Inside)
	if err != nil {
		return err
	}
	if len(t.Conntrack) == 0 || len(t.Elements) == 0 {
		return fmt.Errorf("the kernel holds %+v of %s, want conntrack entries and map elements", t, who.User)
	}
	s.seen("nft: %s is in the maps %s", who.Inside, strings.Join(t.Elements, ", "))
	s.seen("conntrack: %d entries", len(t.Conntrack))
	s.quote(strings.Join(t.Conntrack, "\n"))
	return nil
}

// nothingLeft checks with conntrack and nft that the kernel has no state of a
// subscriber.
func (s *stage) nothingLeft(ctx context.Context, who rig.Session, since time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if err := s.AwaitNothing(ctx, who.Inside); err != nil {
		return err
	}
	s.seen("conntrack and nft: nothing names %s any more, %d ms later (most of it the looking)",
		who.Inside, time.Since(since).Milliseconds())
	return nil
}

// heldThenFree checks the quarantine of a freed block.
func (s *stage) heldThenFree(ctx context.Context, who rig.Session) error {
	b, err := s.AwaitState(ctx, who.Inside, "HELD")
	if err != nil {
		return err
	}
	s.seen("sessionctl: her block %s %d-%d is HELD (for %v here)", b.OutsideAddress, b.FirstPort, b.LastPort, holdTime)
	err = s.Until(ctx, "the block to be free", func() (bool, error) {
		bindings, err := s.Bindings(ctx, who.Inside)
		return len(bindings) == 0, err
	})
	if err != nil {
		return err
	}
	s.seen("sessionctl: the block is free")
	return nil
}

func (s *stage) deleteByOperator(ctx context.Context) error {
	_, err := s.Daemon.Ctl(ctx, "subscriber", "delete", alice.Inside.String(), "--yes")
	return err
}

func (s *stage) deleteInRedis(ctx context.Context) error {
	n, err := s.Redis.CLI(ctx, "DEL", "sessiond:{default}:sub:"+alice.Inside.String())
	if err == nil && n != "1" {
		return fmt.Errorf("redis-cli DEL: %s", n)
	}
	return err
}
