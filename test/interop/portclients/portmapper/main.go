// Command portmapper keeps a mapping as a client of tailscale does, by its net/portmapper.
//
//	portmapper GATEWAY SELF INSIDE_PORT pcp|pmp
//
// It prints a line with each outside endpoint that the library holds behind "endpoint:", "none" for
// none, and its log behind "log:". It renews the mapping until its standard input ends, then deletes
// it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"time"

	"tailscale.com/net/netmon"
	"tailscale.com/net/portmapper"
	"tailscale.com/util/eventbus"
)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "portmapper:", err)
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	if len(args) != 4 {
		return errors.New("usage: portmapper GATEWAY SELF INSIDE_PORT pcp|pmp")
	}
	return keepMapping(args, in, out)
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
