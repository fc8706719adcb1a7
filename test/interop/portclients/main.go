// Command portclients asks a gateway for ports by clients of other projects: jackpal/go-nat-pmp and
// tailscale's net/portmapper. It is a module of its own, so that sessiond depends on neither.
//
//	portclients natpmp GATEWAY address
//	portclients natpmp GATEWAY udp|tcp INSIDE_PORT OUTSIDE_PORT SECONDS
//	portclients portmapper GATEWAY SELF INSIDE_PORT pcp|pmp
//
// The last one prints a line with each outside endpoint that the library holds behind "endpoint:",
// "none" for none, and its log behind "log:". It renews the mapping until its standard input
// ends, then deletes it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"time"

	natpmp "github.com/jackpal/go-nat-pmp"
	"tailscale.com/net/netmon"
	"tailscale.com/net/portmapper"
	"tailscale.com/util/eventbus"
)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "portclients:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("usage: natpmp GATEWAY address | natpmp GATEWAY udp|tcp INSIDE_PORT OUTSIDE_PORT SECONDS | portmapper GATEWAY SELF INSIDE_PORT pcp|pmp")

func run(args []string, in io.Reader, out io.Writer) error {
	switch {
	case len(args) == 3 && args[0] == "natpmp" && args[2] == "address":
		return printAddress(args[1], out)
	case len(args) == 6 && args[0] == "natpmp":
		return askNATPMP(args[1:], out)
	case len(args) == 5 && args[0] == "portmapper":
		return keepMapping(args[1:], in, out)
	}
	return errUsage
}

func printAddress(gateway string, out io.Writer) error {
	a, err := natpmp.NewClient(net.ParseIP(gateway)).GetExternalAddress()
	if err == nil {
		_, err = fmt.Fprintln(out, netip.AddrFrom4(a.ExternalIPAddress))
	}
	return err
}

// askNATPMP asks for a mapping: gateway, protocol, inside port, outside port, seconds.
func askNATPMP(args []string, out io.Writer) error {
	var numbers [3]int
	for i := range numbers {
		n, err := strconv.Atoi(args[2+i])
		if err != nil {
			return err
		}
		numbers[i] = n
	}
	m, err := natpmp.NewClient(net.ParseIP(args[0])).AddPortMapping(args[1], numbers[0], numbers[1], numbers[2])
	if err == nil {
		_, err = fmt.Fprintln(out, m.MappedExternalPort, m.PortMappingLifetimeInSeconds)
	}
	return err
}

// keepMapping keeps a mapping as a client of tailscale does: gateway, own address, inside port,
// protocol.
func keepMapping(args []string, in io.Reader, out io.Writer) error {
	gateway, err := netip.ParseAddr(args[0])
	if err != nil {
		return err
	}
	self, err := netip.ParseAddr(args[1])
	if err != nil {
		return err
	}
	port, err := strconv.ParseUint(args[2], 10, 16)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	say := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(out, format+"\n", args...)
	}
	yes := func() bool { return true }
	knobs := &portmapper.DebugKnobs{DisableUPnPFunc: yes, DisablePMPFunc: yes}
	if args[3] == "pmp" {
		knobs.DisablePMPFunc, knobs.DisablePCPFunc = nil, yes
	}
	bus := eventbus.New()
	defer bus.Close()
	c := portmapper.NewClient(portmapper.Config{
		EventBus: bus, NetMon: netmon.NewStatic(), DebugKnobs: knobs,
		Logf: func(format string, args ...any) { say("log: "+format, args...) },
	})
	c.SetGatewayLookupFunc(func() (gw, myIP netip.Addr, ok bool) { return gateway, self, true })
	c.SetLocalPort(uint16(port))
	found, err := c.Probe(context.Background())
	if err != nil {
		return err
	}
	say("probe: pcp %t, pmp %t", found.PCP, found.PMP)
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, in)
		close(ended)
	}()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for last := ""; ; {
		now := "none"
		if endpoint, ok := c.GetCachedMappingOrStartCreatingOne(); ok {
			now = endpoint.String()
		}
		if now != last {
			say("endpoint: %s", now)
			last = now
		}
		select {
		case <-ended:
			return c.Close()
		case <-tick.C:
		}
	}
}
