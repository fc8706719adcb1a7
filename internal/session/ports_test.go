package session

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// ports returns the port use of the only group, measured after the call.
func (w *world) ports() inspect.PortUse {
	w.t.Helper()
	w.Manager.ports.measure(0)
	uses, err := w.PortUse(context.Background())
	w.must(err)
	return uses[0]
}

// TestPortUse: use and peaks of a binding, a pool and a group, through the end of the binding,
// another holder of the address, and a restart.
func TestPortUse_NAT39(t *testing.T) {
	g := testGroup
	g.BlockSize, g.Hold = 8, time.Hour
	w := newWorld(t, g)
	inside := netip.MustParseAddr("100.64.0.1")
	idle := netip.MustParseAddr("100.64.0.2")
	w.send(subscriber.EventStart, inside, "alice", "1")
	w.send(subscriber.EventStart, idle, "bob", "2")
	w.awaitState(inside, nat.Active)
	w.awaitState(idle, nat.Active)
	for port := range uint16(5) {
		w.flow(inside, 5000+port)
	}
	if _, err := w.nat.Send(unix.IPPROTO_UDP, netip.AddrPortFrom(inside, 5000), netip.MustParseAddrPort("203.0.113.11:443")); err != nil {
		t.Fatal(err) // a session more, and no port
	}
	if _, err := w.nat.Send(unix.IPPROTO_TCP, netip.AddrPortFrom(inside, 5000), remote); err != nil {
		t.Fatal(err)
	}
	u := w.ports()
	if p := u.Pools[0]; p.Current != (nat.PortUse{TCP: 1, UDP: 5}) || p.Peak != p.Current || p.Counts.Users() != 1 || p.Outside != g.Outside[0] {
		t.Errorf("the pool is %+v", p)
	}
	if u.Bindings != 2 || u.Live != 2 || u.Full != 0 || u.Current.Users() != 1 || u.Current.Percentile(50) != 5 {
		t.Errorf("the group is %+v", u.Observation)
	}
	for port := range uint16(5) { // four end, and four begin
		if port > 0 {
			w.nat.Expire(w.flow(inside, 5000+port))
			w.flow(inside, 6000+port)
		}
	}
	for port := range uint16(3) {
		w.flow(inside, 7000+port)
	}
	w.ports()
	for port := range uint16(3) {
		w.nat.Expire(w.flow(inside, 7000+port))
	}
	u = w.ports()
	if b := w.awaitState(inside, nat.Active); b.PortsInUse != (nat.PortUse{TCP: 1, UDP: 5}) || b.PortsPeak != (nat.PortUse{TCP: 1, UDP: 8}) {
		t.Errorf("the binding uses %+v, at most %+v", b.PortsInUse, b.PortsPeak)
	}
	if p := u.Pools[0]; p.Current != (nat.PortUse{TCP: 1, UDP: 5}) || p.Peak != (nat.PortUse{TCP: 1, UDP: 8}) || u.Full != 1 {
		t.Errorf("the pool is %+v, %d bindings were full", p, u.Full)
	}
	w.send(subscriber.EventStop, inside, "alice", "1")
	w.awaitState(inside, nat.Held)
	w.send(subscriber.EventStart, inside, "carol", "3")
	b := w.awaitState(inside, nat.Active)
	w.flow(inside, 8000)
	u = w.ports()
	if got := w.awaitState(inside, nat.Active); got.PortsInUse != (nat.PortUse{UDP: 1}) || got.PortsPeak != got.PortsInUse || got.Place() != b.Place() {
		t.Errorf("the next holder uses %+v, at most %+v", got.PortsInUse, got.PortsPeak)
	}
	if u.Bindings != 3 || u.Live != 2 || u.Full != 1 || u.Peaks.Users() != 2 || u.Peaks.Above(4) != 1 || u.Peaks.Above(8) != 0 {
		t.Errorf("the group is %+v", u.Observation)
	}
	w.halt()
	w.boot()
	u = w.ports()
	if p := u.Pools[0]; u.Bindings != 2 || u.Peaks.Users() != 1 || u.Peaks.Above(1) != 0 || p.Peak != (nat.PortUse{UDP: 1}) {
		t.Errorf("after a restart the group is %+v, the pool %+v", u.Observation, p)
	}
}

// TestAdviseBlockSize: the advice is made of the port use of the group.
func TestAdviseBlockSize_NAT39(t *testing.T) {
	g := testGroup
	w := newWorld(t, g)
	for i := range byte(10) {
		inside := netip.AddrFrom4([4]byte{100, 64, 0, i + 1})
		w.send(subscriber.EventStart, inside, "u", string('a'+rune(i)))
		w.awaitState(inside, nat.Active)
		for port := range 20 * uint16(i) { // 180 ports at most
			w.flow(inside, 5000+port)
		}
	}
	w.ports()
	list, err := w.AdviseBlockSize(context.Background(), "default", 0.2)
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	a := list[0]
	// 140, 160 and 180 are above 128; capacity is (65536-1024)/128 blocks of 16 addresses.
	if s := a.Sizes[1]; a.Recommended != 256 || s.BlockSize != 128 || s.Overflowed != 3 || s.Share != 0.3 || s.Subscribers != 504*16 {
		t.Errorf("advice is %+v", a.Advice)
	}
	if a.Bindings != 10 || a.BlockSize != 512 || a.Full != 0 {
		t.Errorf("from %+v", a.Observation)
	}
	if list, err := w.AdviseBlockSize(context.Background(), "other", 0.2); !errors.Is(err, inspect.ErrNotFound) {
		t.Error(list, err)
	}
}
