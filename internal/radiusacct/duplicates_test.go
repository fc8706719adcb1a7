package radiusacct

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

// modelEntry is an exchange as a simple map knows it.
type modelEntry struct {
	authenticator byte
	replied       bool
	expires       time.Time
	x             *exchange
}

// TestDuplicatesWalk compares the cache with a plain map over random steps, far
// below its limit.
func TestDuplicatesWalk_ACCT12(t *testing.T) {
	for seed := range uint64(50) {
		walkDuplicates(t, rand.New(rand.NewPCG(seed, 1)))
	}
}

func walkDuplicates(t *testing.T, r *rand.Rand) {
	d := newDuplicates(1 << 20)
	model := make(map[exchangeKey]*modelEntry)
	now := time.Unix(1_700_000_000, 0)
	for range 500 {
		now = now.Add(time.Duration(r.IntN(3000)) * time.Millisecond)
		for k, e := range model {
			if e.replied && !now.Before(e.expires) {
				delete(model, k)
			}
		}
		x := &exchange{key: exchangeKey{identifier: byte(r.IntN(6))}, authenticator: [16]byte{byte(r.IntN(3))}}
		known := model[x.key]
		got, seen := d.begin(x, now)
		switch {
		case known == nil || known.authenticator != x.authenticator[0]:
			if seen != fresh {
				t.Fatalf("new request seen as %v", seen)
			}
			known = &modelEntry{authenticator: x.authenticator[0], x: got}
			model[x.key] = known
		case known.replied && (seen != answered || got != known.x):
			t.Fatalf("answered request seen as %v", seen)
		case !known.replied && seen != inProgress:
			t.Fatalf("request in progress seen as %v", seen)
		}
		switch finish := r.IntN(3); {
		case known.replied:
		case finish == 0:
			d.abandon(known.x)
			delete(model, x.key)
		case finish == 1:
			if !d.complete(known.x, now) {
				t.Fatal("a current request was not completed")
			}
			known.replied, known.expires = true, now.Add(cacheLifetime)
		}
		checkDuplicates(t, d)
	}
}

// checkDuplicates verifies size, list and map against each other.
func checkDuplicates(t *testing.T, d *duplicates) {
	t.Helper()
	size, replied := 0, 0
	for key, x := range d.exchanges {
		if x.key != key {
			t.Fatal("exchange under a foreign key")
		}
		size += x.cost()
		if x.replied {
			replied++
		}
	}
	listed := 0
	var last *exchange
	for x := d.oldest; x != nil; x = x.newer {
		if x.older != last || d.exchanges[x.key] != x || !x.replied {
			t.Fatal("list of replies is broken")
		}
		if last != nil && x.expires.Before(last.expires) {
			t.Fatal("replies out of order")
		}
		last = x
		listed++
	}
	if size != d.size || listed != replied || d.newest != last || d.size > d.limit {
		t.Fatalf("size %d, counted %d, limit %d; %d of %d replies listed", d.size, size, d.limit, listed, replied)
	}
}

func TestDuplicatesBounded_ACCT26(t *testing.T) {
	const room = 10
	d := newDuplicates(room * exchangeOverhead)
	now := time.Unix(1_700_000_000, 0)
	enter := func(i int) (*exchange, sighting) {
		return d.begin(&exchange{key: exchangeKey{source: netip.AddrPortFrom(netip.Addr{}, uint16(i))}}, now)
	}
	var open []*exchange
	for i := range room {
		x, seen := enter(i)
		if seen != fresh {
			t.Fatalf("request %d seen as %v", i, seen)
		}
		open = append(open, x)
	}
	if _, seen := enter(room); seen != full {
		t.Errorf("no room for another in progress, but it was seen as %v", seen)
	}
	d.complete(open[3], now)
	d.complete(open[1], now)
	if _, seen := enter(room); seen != fresh {
		t.Errorf("a replied exchange could go, but the request was seen as %v", seen)
	}
	if _, seen := enter(1); seen != answered {
		t.Error("the newer reply went first")
	}
	if _, seen := enter(3); seen == answered {
		t.Error("the older reply stayed")
	}
	checkDuplicates(t, d)
	d.expire(now.Add(cacheLifetime))
	checkDuplicates(t, d)
}
