package nftnat

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/testenv"
)

// TestHelpersOfOthersOpenNoPort_NAT10_NAT40_I1: a rule of others assigns the FTP helper to a
// subscriber's control connection. The control connection works. The connections that it makes
// the helper expect, in active mode from outside and in passive mode from the subscriber, are
// of no port of the block: they are dropped, counted, and leave no entry. The start warns.
func TestHelpersOfOthersOpenNoPort_NAT10_NAT40_I1(t *testing.T) {
	lab := newLab(t)
	testenv.Succeeds(t, func() error { // the helper is in the kernel
		_, err := lab.CGN.Output(testContext(t), "nft", `table ip alg { ct helper ftp { type "ftp" protocol tcp; }; }`)
		return err
	})
	run(t, lab, "nft", `table ip alg {
		chain assign {
			type filter hook prerouting priority filter
			tcp dport 21 ct helper set "ftp"
		}
	}`)
	var log logLines
	o := labOptions(lab)
	o.Logger = log.logger()
	w := wireTest{Lab: lab, Kernel: startKernel(t, o), capture: captureInternet(t, lab)}
	if !strings.Contains(log.String(), "table alg, ct helper ftp") {
		t.Errorf("the start does not warn of the helper:\n%s", log.String())
	}
	e := blockOf(alice, nat.GateOpen, 0)
	apply(t, w, e)
	atAlice, err := lab.CGN.Capture(netlab.InsideInterface)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = atAlice.Close() })

	server := netip.AddrPortFrom(lab.Remotes[0], 21)
	listener, err := lab.Internet.Listen(testContext(t), server)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client, err := lab.Subscriber.Dial(testContext(t), "tcp4", netip.AddrPortFrom(alice, 0), server)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	control, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	if seen := control.RemoteAddr().(*net.TCPAddr).AddrPort(); !inBlock(e, seen) {
		t.Errorf("the control connection is seen from %v, want %v", seen, e)
	}

	// The helper reads whole lines, and takes the first of each side for the rest of one.
	for from, line := range map[net.Conn]string{client: "USER alice\r\n", control: "220 ready\r\n"} {
		if _, err := from.Write([]byte(line)); err != nil {
			t.Fatal(err)
		}
	}
	for _, at := range []net.Conn{client, control} {
		if _, err := at.Read(make([]byte, 64)); err != nil {
			t.Fatal(err)
		}
	}

	const dataPort = 40000 // outside the block
	if _, err := fmt.Fprintf(client, "PORT 100,64,0,10,%d,%d\r\n", dataPort>>8, dataPort&0xff); err != nil {
		t.Fatal(err)
	}
	w.wantExpectation(t, fmt.Sprintf("dport=%d", dataPort))
	data := netlab.Packet{
		Protocol: netlab.TCP, Flags: netlab.SYN, Source: netip.AddrPortFrom(server.Addr(), 20), Destination: netip.AddrPortFrom(eip, dataPort),
	}
	w.wantExpectedDropped(t, lab.Internet, data, nat.DropIn)
	if err := atAlice.Settle(testContext(t), lab.CGN, alice); err != nil {
		t.Fatal(err)
	}
	if seen := atAlice.Matching(func(p netlab.Packet) bool { return p.Source == data.Source }); len(seen) > 0 {
		t.Errorf("the expected connection arrives at the subscriber: %+v", seen[0])
	}

	if _, err := fmt.Fprintf(control, "227 Entering Passive Mode (203,0,113,10,%d,%d)\r\n", dataPort>>8, dataPort&0xff); err != nil {
		t.Fatal(err)
	}
	w.wantExpectation(t, fmt.Sprintf("dst=%v", server.Addr()))
	w.wantExpectedDropped(t, lab.Subscriber, netlab.Packet{
		Protocol: netlab.TCP, Flags: netlab.SYN, Source: netip.AddrPortFrom(alice, 33333), Destination: netip.AddrPortFrom(server.Addr(), dataPort),
	}, nat.DropOut)
	if entries := run(t, lab, "conntrack", "-L"); strings.Contains(entries, fmt.Sprint(dataPort)) {
		t.Errorf("conntrack has the expected connection: %s", entries)
	}
	w.wantNoLeak(t, alice)

	apply(t, w, nat.Entry{Inside: alice}) // and the removal takes the rest
	if _, err := w.Reap(testContext(t), []netip.Addr{alice}); err != nil {
		t.Fatal(err)
	}
	w.wantConntrack(t, alice, 0)
	if left := run(t, lab, "conntrack", "-L", "expect"); strings.Contains(left, alice.String()) || strings.Contains(left, eip.String()) {
		t.Errorf("expectations are left: %s", left)
	}
}

func (w wireTest) wantExpectation(t *testing.T, with string) {
	t.Helper()
	testenv.Succeeds(t, func() error {
		if list := run(t, w.Lab, "conntrack", "-L", "expect"); !strings.Contains(list, with) {
			return fmt.Errorf("no expectation with %s: %s", with, list)
		}
		return nil
	})
}

// wantExpectedDropped sends a packet that a helper expects, and waits until it is counted.
func (w wireTest) wantExpectedDropped(t *testing.T, from *netlab.Namespace, p netlab.Packet, direction nat.DropDirection) {
	t.Helper()
	if err := from.Send(p); err != nil {
		t.Fatal(err)
	}
	testenv.Succeeds(t, func() error {
		for _, c := range dropsOf(t, w) {
			if c.Drop == (nat.Drop{Reason: nat.DropExpected, Direction: direction}) && c.Packets == 1 {
				return nil
			}
		}
		return errors.New("it is not counted as expected")
	})
}
