package wire

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/netns"
	"github.com/sessiond/sessiond/internal/nlmsg"
	"github.com/sessiond/sessiond/internal/testenv"
	"golang.org/x/sys/unix"
)

// dialLab opens a Conn and a Listener in a namespace with nftables.
func dialLab(t *testing.T) (*netlab.Lab, *Conn, *Listener) {
	t.Helper()
	testenv.Require(t, testenv.Root|testenv.Nft)
	lab, err := netlab.New(netlab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ns, err := netns.Open(lab.CGN.Name())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := Dial(ns.FD())
	if err != nil {
		t.Fatal(err)
	}
	listener, err := Listen(ns.FD(), conn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _, _, _ = listener.Close(), conn.Close(), ns.Close(), lab.Close() })
	return lab, conn, listener
}

func nft(t *testing.T, lab *netlab.Lab, script string) {
	t.Helper()
	if _, err := lab.CGN.Output(t.Context(), "nft", script); err != nil {
		t.Fatal(err)
	}
}

// TestLookup asks for present and missing keys, with room for all answers and with room
// for few.
func TestLookup(t *testing.T) {
	const n = 3000
	lab, conn, _ := dialLab(t)
	nft(t, lab, "table ip t { set s { type ipv4_addr; }; }")
	element := func(dst []byte, i int) []byte {
		start := len(dst)
		dst = nlmsg.BeginNested(dst, unix.NFTA_SET_ELEM_KEY)
		dst = nlmsg.AppendAttr(dst, unix.NFTA_DATA_VALUE, binary.BigEndian.AppendUint32(nil, uint32(i)))
		return nlmsg.EndNested(dst, start)
	}
	var b Batch
	b.Elements(NewElements, Op{}, "t", "s", n/3, func(dst []byte, i int) []byte { return element(dst, 3*i) })
	if err := conn.Commit(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	for _, room := range []int{lookupBuffer, 20_000} {
		if err := unix.SetsockoptInt(descriptor(t, conn), unix.SOL_SOCKET, unix.SO_RCVBUF, room); err != nil {
			t.Fatal(err)
		}
		conn.asked = maxAsked
		seen := map[int]int{}
		err := conn.Lookup(t.Context(), "t", "s", n, element, func(i int, attrs []byte) {
			if got := nlmsg.Uint32(nlmsg.Attr(nlmsg.Attr(attrs, unix.NFTA_SET_ELEM_KEY), unix.NFTA_DATA_VALUE)); got != uint32(i) {
				t.Fatalf("key %d is answered by %d", i, got)
			}
			seen[i]++
		})
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			if want := 1 - min(i%3, 1); seen[i] != want {
				t.Errorf("room %d: key %d was found %d times, want %d", room, i, seen[i], want)
			}
		}
		if fewer := conn.asked < maxAsked; fewer != (room < lookupBuffer) {
			t.Errorf("with room for %d octets it asks %d at once", room, conn.asked)
		}
	}
	if err := conn.Lookup(t.Context(), "nowhere", "s", 2, element, func(int, []byte) { t.Error("found in a table that is not there") }); err != nil {
		t.Error(err)
	}
}

func descriptor(t *testing.T, c *Conn) (fd int) {
	t.Helper()
	if err := c.raw.Control(func(f uintptr) { fd = int(f) }); err != nil {
		t.Fatal(err)
	}
	return fd
}

// TestListener: a listener gets the notices of other connections, not of its own, and
// reports lost ones.
func TestListener(t *testing.T) {
	lab, conn, l := dialLab(t)
	drain := func() (told []string, lost bool) {
		lost, err := l.Drain(func(n Notice) {
			if n.Command != unix.NFT_MSG_NEWGEN {
				told = append(told, fmt.Sprint(n.Command, " ", n.Table()))
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		return told, lost
	}
	var b Batch
	b.Add(NewTable, Op{}, func(dst []byte) []byte { return nlmsg.AppendString(dst, unix.NFTA_TABLE_NAME, "own") })
	if err := conn.Commit(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	if told, lost := drain(); len(told) > 0 || lost {
		t.Errorf("of its own it is told %v", told)
	}
	waited := make(chan error, 1)
	go func() { waited <- l.Wait(t.Context()) }()
	nft(t, lab, "add table ip others; add set ip others s { type ipv4_addr; }")
	if err := <-waited; err != nil {
		t.Fatal(err)
	}
	if told, lost := drain(); strings.Join(told, ",") != fmt.Sprintf("%d others,%d others", NewTable, NewSet) || lost {
		t.Errorf("of others it is told %v, lost %t", told, lost)
	}

	if err := l.raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 5000)
	}); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		nft(t, lab, "add set ip others t { type ipv4_addr; }; delete set ip others t")
	}
	if _, lost := drain(); !lost {
		t.Error("it does not know that notices were lost")
	}
	if _, lost := drain(); lost {
		t.Error("lost notices are told twice")
	}
	ended, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := l.Wait(ended); err == nil {
		t.Error("Wait returned though there is nothing")
	}
}
