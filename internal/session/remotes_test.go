package session

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// TestSubscribersByRemote: subscribers are listed by the hosts that they talk to, and deleted with
// the same ones before it and after.
func TestSubscribersByRemote(t *testing.T) {
	w := newWorld(t, testGroup)
	ctx := t.Context()
	third := netip.MustParseAddr("100.64.0.12")
	host, other := netip.MustParseAddrPort("203.0.113.5:443"), netip.MustParseAddrPort("203.0.113.6:53")
	for i, inside := range []netip.Addr{alice, bob, third} {
		w.send(subscriber.EventStart, inside, fmt.Sprint("u", i), fmt.Sprint(i))
		w.awaitState(inside, nat.Active)
	}
	for inside, remotes := range map[netip.Addr][]netip.AddrPort{alice: {host, other}, bob: {other}} {
		for i, remote := range remotes {
			if _, err := w.nat.Send(unix.IPPROTO_UDP, netip.AddrPortFrom(inside, uint16(4000+i)), remote); err != nil {
				t.Fatal(err)
			}
		}
	}
	list := func(f inspect.SubscriberFilter) (found []netip.Addr) {
		for after := (subscriber.Key{}); ; {
			page, next, err := w.Subscribers(ctx, f, after, 1)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range page {
				found = append(found, s.Inside)
			}
			if after = next; next == (subscriber.Key{}) {
				return found
			}
		}
	}
	byName := func(f inspect.SubscriberFilter) (found []netip.Addr) {
		page, _, err := w.SubscribersByName(ctx, f, inspect.NameKey{}, 10)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range page {
			found = append(found, s.Inside)
		}
		return found
	}
	for _, c := range []struct {
		filter inspect.SubscriberFilter
		want   []netip.Addr
	}{
		{inspect.SubscriberFilter{Remote: netip.PrefixFrom(host.Addr(), 32)}, []netip.Addr{alice}},
		{inspect.SubscriberFilter{Remote: netip.PrefixFrom(other.Addr(), 32)}, []netip.Addr{alice, bob}},
		{inspect.SubscriberFilter{RemotePort: 53}, []netip.Addr{alice, bob}},
		{inspect.SubscriberFilter{RemotePort: 53, UserName: "u1"}, []netip.Addr{bob}},
		{inspect.SubscriberFilter{RemotePort: 53, Group: "west"}, nil},
		{inspect.SubscriberFilter{Remote: netip.PrefixFrom(host.Addr(), 32), RemotePort: 53}, nil},
		{inspect.SubscriberFilter{Remote: netip.MustParsePrefix("0.0.0.0/0"), State: inspect.SubscriberActive}, []netip.Addr{alice, bob}},
		{inspect.SubscriberFilter{Remote: netip.MustParsePrefix("0.0.0.0/0"), State: inspect.SubscriberPending}, nil},
		{inspect.SubscriberFilter{Remote: netip.MustParsePrefix("198.51.100.0/24")}, nil},
	} {
		got, named := list(c.filter), byName(c.filter)
		if !slices.Equal(got, c.want) || !slices.Equal(named, c.want) {
			t.Errorf("%+v: %v, by name %v, want %v", c.filter, got, named, c.want)
		}
		if _, all, _, err := w.Previews().PreviewDelete(ctx, c.filter, 10); err != nil || all != len(c.want) {
			t.Errorf("%+v: %d would be deleted, %v; want %d", c.filter, all, err, len(c.want))
		}
		if n, counted := w.SubscriberTotal(ctx, c.filter); counted {
			t.Errorf("%+v: %d are counted", c.filter, n)
		}
	}
	deleted, err := w.Delete(ctx, inspect.SubscriberFilter{Remote: netip.PrefixFrom(host.Addr(), 32), RemotePort: 443})
	if err != nil || len(deleted) != 1 || deleted[0].Inside != alice {
		t.Errorf("deleted %v, %v", deleted, err)
	}
	if got := list(inspect.SubscriberFilter{}); !slices.Equal(got, []netip.Addr{bob, third}) {
		t.Errorf("online are %v", got)
	}
}
