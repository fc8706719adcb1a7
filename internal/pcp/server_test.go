package pcp

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/pcp/wire"
	"github.com/sessiond/sessiond/internal/testenv"
)

// further is an address of the CGN that no interface leads to.
var further = netip.MustParseAddr("192.0.2.53")

// A scene is a Server in the CGN of a lab, over a twin.
type scene struct {
	*netlab.Lab
	t      *testing.T
	twin   *twin
	counts *counts
	server *Server
	stop   func()
}

// newScene starts a Server; thirdParty may ask for others.
func newScene(t *testing.T, thirdParty ...netip.Prefix) *scene {
	t.Helper()
	testenv.Require(t, testenv.Root|testenv.Nft)
	t.Parallel()
	lab, err := netlab.New(netlab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	s := &scene{Lab: lab, t: t, counts: newCounts(), twin: newTwin(time.Now)}
	s.must(lab.CGN.Configure(netlab.Interface{Name: "lo", Addresses: []netip.Prefix{netip.PrefixFrom(further, 32)}}))
	s.twin.settings.ThirdParty = thirdParty
	s.start(true)
	return s
}

func (s *scene) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// start opens and runs a server, until the end of the test or stop.
func (s *scene) start(anycast bool) {
	s.t.Helper()
	var err error
	s.server, err = New(Options{
		Mappings: s.twin, NetNS: s.CGN.Path(), InsideInterfaces: []string{"s*"}, OutsideInterfaces: []string{netlab.OutsideInterface},
		Listen: []netip.Addr{further}, Anycast: anycast, Observer: s.counts, Logger: slog.New(slog.DiscardHandler),
	})
	s.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.server.Run(ctx) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			s.t.Error(err)
		}
	})
	s.t.Cleanup(s.stop)
}

// dial opens a socket that takes datagrams from the address that it asks, and from no other.
func (s *scene) dial(from *netlab.Namespace, source, server netip.Addr) net.Conn {
	s.t.Helper()
	c, err := from.Dial(s.t.Context(), "udp4", netip.AddrPortFrom(source, 0), netip.AddrPortFrom(server, 5351))
	s.must(err)
	s.t.Cleanup(func() { c.Close() })
	return c
}

// exchange sends a request, and returns the answer.
func (s *scene) exchange(c net.Conn, r *wire.Request) (wire.Answer, error) {
	if _, err := c.Write(wire.AppendRequest(nil, r)); err != nil {
		return wire.Answer{}, err
	}
	return s.read(c)
}

func (s *scene) read(c net.Conn) (wire.Answer, error) {
	if err := c.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return wire.Answer{}, err
	}
	buffer := make([]byte, 2000)
	n, err := c.Read(buffer)
	if err != nil {
		return wire.Answer{}, err
	}
	return wire.ParseAnswer(buffer[:n])
}

// TestAddresses_PCP01: the server answers at the addresses of inside interfaces, at the anycast
// address (RFC 7723) and at configured ones, each time from the address that was asked; and
// nobody who asks by an outside interface, or at an outside address.
func TestAddresses_PCP01(t *testing.T) {
	s := newScene(t)
	request := mapping(5000, 3600)
	request.Client = alice
	for _, server := range []netip.Addr{netlab.InsideGateway.Addr(), Anycast, further} {
		a, err := s.exchange(s.dial(s.Subscriber, alice, server), request)
		if err != nil || a.Result != wire.Success || a.Outside.Port() != 60000 {
			t.Errorf("%v answers %+v, %v", server, a, err)
		}
	}
	s.must(s.Internet.AddRoute(netlab.Route{Destination: netip.PrefixFrom(further, 32), Gateway: netlab.OutsideGateway.Addr()}))
	for i, c := range []net.Conn{
		s.dial(s.Subscriber, alice, netlab.OutsideGateway.Addr()),
		s.dial(s.Internet, s.Remotes[0], netlab.OutsideGateway.Addr()),
		s.dial(s.Internet, s.Remotes[0], further),
	} {
		_, err := c.Write(wire.AppendRequest(nil, request))
		s.must(err)
		testenv.Eventually(t, "a counted stranger", func() bool { return s.counts.of("map", OutcomeStranger) == i+1 })
		s.must(c.SetReadDeadline(time.Now().Add(50 * time.Millisecond)))
		if n, err := c.Read(make([]byte, 2000)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("connection %d gets %d octets, %v", i, n, err)
		}
	}
	if a, err := s.exchange(s.dial(s.Subscriber, bob, Anycast), request); err != nil || a.Result != wire.AddressMismatch {
		t.Errorf("another client's address gets %+v, %v", a, err)
	}
}

// TestInterfaceComes_PCP01: an interface and an address that appear while the server runs are
// served.
func TestInterfaceComes_PCP01(t *testing.T) {
	s := newScene(t)
	request := mapping(5000, 3600)
	request.Client = alice
	if _, err := s.exchange(s.dial(s.Subscriber, alice, Anycast), request); err != nil {
		t.Fatal(err)
	}
	host := netip.MustParsePrefix("10.9.0.2/24")
	gateway := netlab.Interface{Name: "s9", Addresses: []netip.Prefix{netip.MustParsePrefix("10.9.0.1/24")}}
	ns, err := s.AddHost("late", host, gateway)
	s.must(err)
	s.twin.setOnline(host.Addr(), time.Now())
	request.Client = host.Addr()
	c := s.dial(ns, host.Addr(), gateway.Addresses[0].Addr())
	testenv.Eventually(t, "an answer at the new address", func() bool {
		s.must(c.SetReadDeadline(time.Now().Add(200 * time.Millisecond)))
		_, err := c.Write(wire.AppendRequest(nil, request))
		s.must(err)
		n, err := c.Read(make([]byte, 2000))
		return err == nil && n == 60
	})
}

// TestAnycastRoute: the route goes with the server, and a server without anycast removes one that
// a killed server left.
func TestAnycastRoute(t *testing.T) {
	s := newScene(t)
	has := func() bool {
		out, err := s.CGN.Output(t.Context(), "ip", "route", "show", "table", "local", Anycast.String())
		s.must(err)
		return strings.Contains(string(out), "proto 93")
	}
	if !has() {
		t.Fatal("no route to the anycast address")
	}
	s.stop()
	if has() {
		t.Error("the route outlives the server")
	}
	s.start(true)
	s.must(s.server.place.setAnycast(true)) // one that is there is no error
	s.server.options.Anycast = false        // as if killed
	s.stop()
	if !has() {
		t.Fatal("the route went with a killed server")
	}
	s.start(false)
	if has() {
		t.Error("a server without anycast leaves the route")
	}
}

// TestAnnouncementsArrive: a loss is told where clients listen and where this one asked from, from the
// address that it asked.
func TestAnnouncementsArrive_PCP32(t *testing.T) {
	s := newScene(t)
	listener, err := s.Subscriber.Dial(t.Context(), "udp4", netip.AddrPortFrom(alice, wire.ClientPort), netip.AddrPortFrom(Anycast, wire.ServerPort))
	s.must(err)
	t.Cleanup(func() { listener.Close() })
	request := mapping(5000, 3600)
	request.Client = alice
	asked := s.dial(s.Subscriber, alice, Anycast)
	granted, err := s.exchange(asked, request)
	s.must(err)
	s.twin.setOnline(alice, time.Now())
	s.server.MappingsLost(alice)
	for i := range 4 {
		if a, err := s.read([]net.Conn{listener, asked}[i%2]); err != nil || a.Opcode != wire.Announce || a.Epoch > 5 || granted.Epoch < 3600 {
			t.Errorf("after a loss: %+v, %v", a, err)
		}
	}
	s.counts.mu.Lock()
	defer s.counts.mu.Unlock()
	if s.counts.announced[announcePCP] < 4 {
		t.Errorf("announced %v", s.counts.announced)
	}
}

// TestOptions names what is missing.
func TestOptions(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	for want, o := range map[string]Options{
		"Mappings":         {InsideInterfaces: []string{"s0"}, Observer: newCounts(), Logger: log},
		"InsideInterfaces": {Mappings: newTwin(time.Now), Observer: newCounts(), Logger: log},
		"Observer":         {Mappings: newTwin(time.Now), InsideInterfaces: []string{"s0"}, Logger: log},
		"namespace":        {Mappings: newTwin(time.Now), InsideInterfaces: []string{"s0"}, Observer: newCounts(), Logger: log, NetNS: "sd-no-such-namespace"},
	} {
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("without %s: %v", want, err)
		}
	}
}
