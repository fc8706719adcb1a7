package main

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/labapi"
	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/testenv"
)

// asLabhost makes the test binary run as labhost, so that the hosts of a test
// are separate processes in separate namespaces.
const asLabhost = "LABHOST_RUN"

func TestMain(m *testing.M) {
	if os.Getenv(asLabhost) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

var (
	alice  = netip.MustParseAddr("100.64.0.10")
	extra  = netip.MustParseAddr("203.0.113.30")
	remote = netip.MustParseAddr("203.0.113.10")
)

func newLab(t *testing.T) *netlab.Lab {
	t.Helper()
	testenv.Require(t, testenv.Root)
	lab, err := netlab.New(netlab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	return lab
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// startHost runs labhost in a namespace and returns a client for it.
func startHost(t *testing.T, ns *netlab.Namespace, args ...string) *labapi.Client {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), asLabhost+"=1")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := ns.Start(cmd); err != nil {
		t.Fatal(err)
	}
	client := labapi.NewClient(ns)
	t.Cleanup(func() {
		client.Close()
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("labhost %s: %v: %s", args[0], err, stderr.String())
		}
	})
	ctx := testContext(t)
	for {
		_, err := client.Flows(ctx)
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return client
		}
		select {
		case <-ctx.Done():
			t.Fatalf("labhost %s does not take orders: %v: %s", args[0], err, stderr.String())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func TestSubscriberMeetsInternet(t *testing.T) {
	t.Parallel()
	lab := newLab(t)
	internet := startHost(t, lab.Internet, "internet",
		"--address", extra.String()+"/24", "--route", "100.64.0.0/10=203.0.113.1", "--echo", "203.0.113.30:7007")
	subscriber := startHost(t, lab.Subscriber, "subscriber")
	ctx := testContext(t)
	from := netip.AddrPortFrom(alice, 4000)
	for _, network := range []string{"tcp4", "udp4"} {
		p := labapi.Probe{Network: network, From: from, To: netip.AddrPortFrom(extra, 7007)}
		if seen, err := subscriber.Ask(ctx, p); err != nil || seen != from {
			t.Errorf("%s seen from %v, %v", network, seen, err)
		}
	}
	payload, err := subscriber.Ping(ctx, labapi.Probe{From: netip.AddrPortFrom(alice, 9), To: netip.AddrPortFrom(extra, 0)})
	if err != nil {
		t.Fatal(err)
	}
	ping := netlab.EchoRequest{Source: alice, ID: 9, Payload: payload}
	seen := waitForPing(ctx, t, internet, ping)
	if want := []netlab.Sighting{{Network: "tcp4", Source: from}, {Network: "udp4", Source: from}}; !slices.Equal(seen.Echo, want) {
		t.Errorf("echo saw %v, want %v", seen.Echo, want)
	}
}

// waitForPing returns the host's sightings once they include the ping. The host
// captures pings beside the kernel, which may answer first.
func waitForPing(ctx context.Context, t *testing.T, host *labapi.Client, ping netlab.EchoRequest) labapi.Seen {
	t.Helper()
	for {
		seen, err := host.Seen(ctx)
		if err == nil && slices.Contains(seen.Pings, ping) {
			return seen
		}
		select {
		case <-ctx.Done():
			t.Fatalf("pings seen are %v, want %v; %v", seen.Pings, ping, err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func TestFlowBetweenHosts(t *testing.T) {
	t.Parallel()
	lab := newLab(t)
	internet := startHost(t, lab.Internet, "internet", "--route", "100.64.0.0/10=203.0.113.1")
	subscriber := startHost(t, lab.Subscriber, "subscriber")
	ctx := testContext(t)
	p := labapi.Probe{From: netip.AddrPortFrom(alice, 0), To: netip.AddrPortFrom(remote, 7000)}
	opened, err := subscriber.Open(ctx, p)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := subscriber.Send(ctx, opened.ID); n != 1 || err != nil {
		t.Fatalf("Send = %d, %v", n, err)
	}
	testenv.Eventually(t, "the flow is at the internet host", func() bool {
		all, err := internet.Flows(ctx)
		return err == nil && len(all) == 1 && all[0].Remote == opened.Local && all[0].Received == 1
	})
	if _, err := internet.Send(ctx, 1); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "the answer is at the subscriber", func() bool {
		all, err := subscriber.Flows(ctx)
		return err == nil && all[0].Received == 1
	})
	if err := subscriber.End(ctx, opened.ID); err != nil {
		t.Error(err)
	}
	if _, err := subscriber.Send(ctx, opened.ID); err == nil {
		t.Error("sent on an ended flow")
	}
	if _, err := subscriber.Send(ctx, 2); err == nil || !strings.Contains(err.Error(), "no such flow") {
		t.Errorf("sent on a flow that never was: %v", err)
	}
}

func TestThirdPartyDatagram(t *testing.T) {
	t.Parallel()
	lab := newLab(t)
	internet := startHost(t, lab.Internet, "internet", "--route", "100.64.0.0/10=203.0.113.1")
	inside, err := lab.Subscriber.ListenUDP(netip.AddrPortFrom(alice, 5000))
	if err != nil {
		t.Fatal(err)
	}
	lab.Own(inside)
	d := labapi.Datagram{From: netip.AddrPortFrom(remote, 6000), To: netip.AddrPortFrom(alice, 5000), Payload: "hello"}
	if err := internet.SendDatagram(testContext(t), d); err != nil {
		t.Fatal(err)
	}
	_ = inside.SetReadDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 16)
	n, from, err := inside.ReadFromUDPAddrPort(buf)
	if err != nil || string(buf[:n]) != "hello" || from != d.From {
		t.Errorf("got %q from %v, %v", buf[:n], from, err)
	}
}

func TestRouteNamesInterfaces(t *testing.T) {
	t.Parallel()
	lab := newLab(t)
	cmd := exec.Command(os.Args[0], "route", "--name", alice.String()+"=eth7")
	cmd.Env = append(os.Environ(), asLabhost+"=1")
	if err := lab.Subscriber.Start(cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if out, err := lab.Subscriber.Output(testContext(t), "ip", "link", "show", "eth7"); err != nil {
		t.Errorf("no interface of the new name: %s %v", out, err)
	}
}
