package radiusacct

import (
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/radiusacct/wire"
)

// modelEntry is an exchange in a simple map.
type modelEntry struct {
	authenticator byte
	reply         []byte // nil while in progress
	expires       time.Time
	x             exchange
}

// TestDuplicatesWalk_ACCT12 compares the cache with a plain map over random steps, far
// below its limit.
func TestDuplicatesWalk_ACCT12(t *testing.T) {
	for seed := range uint64(50) {
		walkDuplicates(t, rand.New(rand.NewPCG(seed, 1)))
	}
}

func walkDuplicates(t *testing.T, r *rand.Rand) {
	now := time.Unix(1_700_000_000, 0)
	d := newReplyCache(1<<20, now)
	model := make(map[exchangeKey]*modelEntry)
	var gone []exchange
	forget := func(key exchangeKey) { gone = append(gone, model[key].x); delete(model, key) }
	for range 500 {
		now = now.Add(time.Duration(r.IntN(3000)) * time.Millisecond)
		for k, e := range model {
			if e.reply != nil && !now.Before(e.expires) {
				forget(k)
			}
		}
		key, authenticator := exchangeKey{identifier: byte(r.IntN(6))}, [16]byte{byte(r.IntN(3))}
		reply := make([]byte, wire.HeaderLen+50*r.IntN(2))
		binary.BigEndian.PutUint64(reply, r.Uint64())
		known := model[key]
		x, seen, cached := d.begin(key, authenticator, len(reply), now, []byte("before"))
		switch {
		case known == nil || known.authenticator != authenticator[0]:
			if seen != fresh {
				t.Fatalf("new request seen as %v", seen)
			}
			if known != nil {
				forget(key)
			}
			known = &modelEntry{authenticator: authenticator[0], x: x}
			model[key] = known
		case known.reply != nil && (seen != answered || string(cached) != "before"+string(known.reply)):
			t.Fatalf("answered request seen as %v with %x, want %x", seen, cached, known.reply)
		case known.reply == nil && seen != inProgress:
			t.Fatalf("request in progress seen as %v", seen)
		}
		switch finish := r.IntN(3); {
		case known.reply != nil || seen == inProgress: // the length was another request's
		case finish == 0:
			d.abandon(known.x)
			forget(key)
		case finish == 1:
			if !d.complete(known.x, reply, now) {
				t.Fatal("a current request was not completed")
			}
			known.reply, known.expires = reply, now.Add(cacheLifetime)
		}
		for _, x := range gone {
			if d.abandon(x); d.complete(x, reply, now) {
				t.Fatal("a request that was forgotten was completed")
			}
		}
		checkDuplicates(t, d)
	}
	d.expire(now.Add(cacheLifetime))
	checkDuplicates(t, d)
}

// checkDuplicates verifies size, list, map and arena against each other.
func checkDuplicates(t *testing.T, d *replyCache) {
	t.Helper()
	size, replied, long := 0, 0, 0
	for key, p := range d.places {
		e := d.entries.At(p)
		if e.key != key {
			t.Fatal("exchange under a foreign key")
		}
		size += costOf(int(e.length))
		if e.replied {
			replied++
		}
		if e.replied && e.length > wire.HeaderLen {
			long++
		}
	}
	listed := 0
	last := uint32(noEntry)
	for p := d.oldest; p != noEntry; p = d.entries.At(p).newer {
		e := d.entries.At(p)
		if e.older != last || d.places[e.key] != p || !e.replied {
			t.Fatal("list of replies is broken")
		}
		if last != noEntry && e.expires < d.entries.At(last).expires {
			t.Fatal("replies out of order")
		}
		last = p
		listed++
	}
	if size != d.size || listed != replied || d.newest != last || d.size > d.limit || long != len(d.long) {
		t.Fatalf("size %d, counted %d, limit %d; %d of %d replies listed; %d of %d long",
			d.size, size, d.limit, listed, replied, long, len(d.long))
	}
	free := 0
	for p := d.free; p != noEntry; p = d.entries.At(p).newer {
		free++
	}
	if d.entries.Len()-free != len(d.places) {
		t.Fatalf("%d entries, %d free, %d in use", d.entries.Len(), free, len(d.places))
	}
}

func TestDuplicatesBounded_ACCT26(t *testing.T) {
	const room = 10
	now := time.Unix(1_700_000_000, 0)
	d := newReplyCache(room*exchangeOverhead, now)
	reply := make([]byte, wire.HeaderLen)
	enter := func(i int) (exchange, cacheResult) {
		x, seen, _ := d.begin(exchangeKey{socket: uint16(i)}, [16]byte{}, wire.HeaderLen, now, nil)
		return x, seen
	}
	var open []exchange
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
	d.complete(open[3], reply, now)
	d.complete(open[1], reply, now)
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

// TestDuplicatesCost_ACCT26 compares the memory of an exchange with costOf.
func TestDuplicatesCost_ACCT26(t *testing.T) {
	const n = 100_000
	now := time.Unix(1_700_000_000, 0)
	before := allocated()
	d := newReplyCache(1<<30, now)
	for i := range n {
		key := exchangeKey{identifier: byte(i), socket: uint16(i >> 8)}
		x, _, _ := d.begin(key, [16]byte{}, wire.HeaderLen, now, nil)
		d.complete(x, make([]byte, wire.HeaderLen), now)
	}
	each := int(allocated()-before) / n
	t.Logf("%d octets each", each)
	if each > exchangeOverhead {
		t.Errorf("an exchange costs %d octets, more than the %d that count", each, exchangeOverhead)
	}
	d.expire(now.Add(cacheLifetime))
	if left := int64(allocated()) - int64(before); left > n {
		t.Errorf("%d octets are left of an empty cache", left)
	}
	runtime.KeepAlive(d)
}

func allocated() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
