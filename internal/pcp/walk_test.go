package pcp

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/pcp/wire"
)

// A walk asks at random, and keeps a simple model of the mappings beside: what an inside port has
// been granted, and until when.
type walk struct {
	*desk
	random *rand.Rand
	model  map[modelKey]modelMapping
	online map[netip.Addr]bool
	epochs map[netip.Addr]uint32
}

type modelKey struct {
	inside   netip.Addr
	protocol uint8
	port     uint16
}

type modelMapping struct {
	nonce   wire.Nonce
	outside netip.AddrPort
	expires time.Time
}

// TestRandomRequests: whatever clients ask, in any order, what they are told is what there is.
func TestRandomRequests_PCP11_PCP13_PCP14_PCP20_PCP21_PCP24_PCP26_PCP31(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			w := &walk{
				desk: newDesk(t), random: rand.New(rand.NewPCG(seed, 16)), model: map[modelKey]modelMapping{},
				online: map[netip.Addr]bool{alice: true, bob: true}, epochs: map[netip.Addr]uint32{},
			}
			w.twin.settings.LenientNonce = seed%2 == 1
			for range 500 {
				w.step()
				w.check()
			}
			if w.counts.of("map", "success") == 0 || w.counts.of("map", "user_ex_quota") == 0 || w.counts.of("natpmp_map", "success") == 0 {
				t.Errorf("the walk came nowhere: %v", w.counts.requests)
			}
		})
	}
}

func (w *walk) step() {
	client := []netip.Addr{alice, bob, carol}[w.random.IntN(3)]
	switch n := w.random.IntN(20); {
	case n == 0 && w.online[client]:
		w.twin.setOffline(client)
		delete(w.online, client)
		delete(w.epochs, client)
		w.drop(func(k modelKey, _ modelMapping) bool { return k.inside == client })
	case n <= 1:
		if !w.online[client] {
			w.twin.setOnline(client, w.now.Wall)
			w.online[client] = true
		}
	case n <= 4:
		w.pass(time.Duration(w.random.IntN(400)) * time.Second)
		w.drop(func(_ modelKey, m modelMapping) bool { return !m.expires.After(w.now.Wall) })
	case n == 5:
		w.garbage(client)
	case n <= 8:
		w.askNATPMP(client)
	default:
		w.askMap(client)
	}
	w.pass(200 * time.Millisecond) // no client asks too often
	w.drop(func(_ modelKey, m modelMapping) bool { return !m.expires.After(w.now.Wall) })
}

// drop forgets some of the model's mappings.
func (w *walk) drop(which func(modelKey, modelMapping) bool) {
	for k, m := range w.model {
		if which(k, m) {
			delete(w.model, k)
		}
	}
}

// randomTarget returns who asks for which port, and with which nonce.
func (w *walk) randomTarget(client netip.Addr) (k modelKey, lifetime uint32) {
	k = modelKey{client, []uint8{6, 17}[w.random.IntN(2)], uint16(w.random.IntN(4))}
	return k, []uint32{0, 1, 300, 3600, 1 << 31}[w.random.IntN(5)]
}

func (w *walk) askMap(client netip.Addr) {
	k, lifetime := w.randomTarget(client)
	r := &wire.Request{Opcode: wire.Map, Lifetime: lifetime, Target: wire.Target{
		Nonce: nonceOf(byte(w.random.IntN(2))), Protocol: k.protocol, InsidePort: k.port,
		Outside: netip.AddrPortFrom(public, uint16(59998+w.random.IntN(10))),
	}}
	a := w.do(client, r)
	w.expectEpoch(client, a.Epoch)
	want := w.expect(k, lifetime, r.Nonce)
	if k.port == 0 && lifetime > 0 {
		want = wire.UnsuppProtocol // online or not
	}
	if a.Result != want {
		w.t.Fatalf("%v asks %+v: %v, want %v", client, r, a.Result, want)
	}
	if a.Result == wire.Success {
		w.apply(k, lifetime, r.Nonce, a.Outside, a.Lifetime)
	}
}

func (w *walk) askNATPMP(client netip.Addr) {
	k, lifetime := w.randomTarget(client)
	r := wire.NATPMPRequest{Protocol: k.protocol, InsidePort: k.port, Lifetime: lifetime}
	a := w.natpmp(client, r)
	w.expectEpoch(client, a.Epoch)
	want := wire.NATPMPResultOf(w.expect(k, lifetime, wire.Nonce{}))
	if w.online[client] && k.port == 0 && lifetime > 0 {
		want = wire.NATPMPNotAuthorized
	}
	if a.Result != want {
		w.t.Fatalf("%v asks %+v: %v, want %v", client, r, a.Result, want)
	}
	if a.Result == wire.NATPMPSuccess {
		w.apply(k, lifetime, wire.Nonce{}, netip.AddrPortFrom(public, a.OutsidePort), max(120, a.Lifetime))
	}
}

// expect returns what a request should come to.
func (w *walk) expect(k modelKey, lifetime uint32, nonce wire.Nonce) wire.Result {
	if !w.online[k.inside] {
		return wire.NetworkFailure
	}
	mine, all := 0, 0
	same := false
	for other, m := range w.model {
		if other.protocol == k.protocol {
			all++
		}
		if other.inside != k.inside {
			continue
		}
		mine++
		if other.protocol == k.protocol {
			same = same || m.nonce == nonce
		}
	}
	has, exists := w.model[k]
	lenient := w.twin.settings.LenientNonce
	switch {
	case k.port == 0 && !lenient && !same && w.any(k):
		return wire.NotAuthorized
	case exists && has.nonce != nonce && !lenient:
		return wire.NotAuthorized
	case lifetime == 0 || exists:
		return wire.Success
	case mine >= w.twin.settings.Mappings:
		return wire.UserExQuota
	case all >= int(w.twin.ports[1]-w.twin.ports[0])+1:
		return wire.NoResources
	}
	return wire.Success
}

// any reports whether the client has a mapping of the protocol.
func (w *walk) any(k modelKey) bool {
	for other := range w.model {
		if other.inside == k.inside && other.protocol == k.protocol {
			return true
		}
	}
	return false
}

// apply changes the model by an answer, which it checks.
func (w *walk) apply(k modelKey, lifetime uint32, nonce wire.Nonce, outside netip.AddrPort, granted uint32) {
	if lifetime == 0 {
		w.drop(func(other modelKey, m modelMapping) bool {
			all := k.port == 0 && other.inside == k.inside && other.protocol == k.protocol && (m.nonce == nonce || w.twin.settings.LenientNonce)
			return all || other == k
		})
		return
	}
	if has, ok := w.model[k]; ok && has.outside != outside {
		w.t.Fatalf("%v moved from %v to %v", k, has.outside, outside)
	}
	if want := min(max(lifetime, 120), 86400); granted != want {
		w.t.Fatalf("%d s are granted for %d, want %d", granted, lifetime, want)
	}
	w.model[k] = modelMapping{nonce, outside, w.now.Wall.Add(time.Duration(granted) * time.Second)}
}

// expectEpoch checks that the epoch of a session grows, and that nobody else has one.
func (w *walk) expectEpoch(client netip.Addr, epoch uint32) {
	if epoch < w.epochs[client] || !w.online[client] && epoch != 0 {
		w.t.Fatalf("the epoch of %v is %d, after %d", client, epoch, w.epochs[client])
	}
	w.epochs[client] = epoch
}

// garbage sends octets at random: mostly those of a request, spoilt.
func (w *walk) garbage(client netip.Addr) {
	before := w.twin.changes
	b := wire.AppendRequest(nil, &wire.Request{Opcode: wire.Map, Lifetime: 600, Client: client, Target: mapping(uint16(w.random.IntN(3)), 0).Target})
	switch w.random.IntN(3) {
	case 0:
		b = b[:w.random.IntN(len(b))]
	case 1:
		b[1] |= 0x80
	case 2:
		b[8+w.random.IntN(16)] ^= byte(1 + w.random.IntN(255))
	}
	if w.ask(client, b); w.twin.changes != before {
		w.t.Fatalf("%x changed mappings", b)
	}
}

// check compares the mappings with the model.
func (w *walk) check() {
	w.t.Helper()
	found := 0
	owners := map[string]modelKey{}
	for _, client := range []netip.Addr{alice, bob, carol} {
		for _, m := range w.twin.List(client) {
			k := modelKey{client, m.Protocol, m.Inside.Port()}
			if has, ok := w.model[k]; !ok || has.outside != m.Outside || has.nonce != m.Nonce || !has.expires.Equal(m.Expires) {
				w.t.Fatalf("%v has %+v, want %+v", k, m, has)
			}
			endpoint := fmt.Sprint(m.Protocol, m.Outside)
			if other, taken := owners[endpoint]; taken {
				w.t.Fatalf("%v and %v share %s", k, other, endpoint)
			}
			owners[endpoint] = k
			found++
		}
	}
	if found != len(w.model) {
		w.t.Fatalf("%d mappings, want %d", found, len(w.model))
	}
}
