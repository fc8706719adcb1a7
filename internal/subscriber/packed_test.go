package subscriber

import (
	"math/rand/v2"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
	"unsafe"
)

// TestPack checks that a packed record unpacks to the same record.
func TestPack(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		want := randomRecord(random)
		p := want.Pack()
		if got := p.Record(); !reflect.DeepEqual(got, want) {
			t.Fatalf("packed\n%+v, got\n%+v", want, got)
		}
		if p.Group() != want.Group || p.UserName() != want.UserName || p.Inside() != want.Inside || p.ExpiresAt() != want.ExpiresAt || p.Unconfirmed() != want.Unconfirmed || p.RemovalHeld() != want.RemovalHeld {
			t.Fatalf("parts of %+v differ: %q %v %v %v", want, p.Group(), p.Inside(), p.ExpiresAt(), p.Unconfirmed())
		}
		if p.CallingStationID() != want.CallingStationID || p.AcctSessionID() != want.AcctSessionID || p.Identity() != want.Identity() || p.Version() != ParseVersion(want.Version) {
			t.Fatalf("parts of %+v differ: %q %q %q %v", want, p.CallingStationID(), p.AcctSessionID(), p.Identity(), p.Version())
		}
		if client, nas := p.Reporter(); client != want.Client || nas != want.NAS {
			t.Fatalf("%+v is reported by %q, %q", want, client, nas)
		}
	}
}

// TestPacker checks that a record packed after others equals the record packed
// alone.
func TestPacker(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	var k Packer
	for range 20_000 {
		r := randomRecord(random)
		if got := k.Pack(&r); !reflect.DeepEqual(got, r.Pack()) {
			t.Fatalf("packed %+v, want %+v", got, r.Pack())
		}
	}
}

// TestPackedOwnsItsTexts checks that a packed record keeps none of the text
// from which the record was read, beyond its own.
func TestPackedOwnsItsTexts(t *testing.T) {
	read := strings.Repeat("x", 64)
	from := uintptr(unsafe.Pointer(unsafe.StringData(read)))
	for _, r := range []Record{
		{SessionID: SessionID{AcctSessionID: read[:8]}},
		{UserName: read[:8]},
		{CallingStationID: read[:8]},
		{UserName: read[:8], SessionID: SessionID{AcctSessionID: read[8:16]}},
	} {
		p := r.Pack()
		for _, text := range []string{p.UserName(), p.AcctSessionID(), p.Record().CallingStationID} {
			if at := uintptr(unsafe.Pointer(unsafe.StringData(text))); text != "" && at >= from && at < from+64 {
				t.Errorf("%+v keeps what it was read from", r)
			}
		}
	}
}

// TestPackedSameSession checks that SameSession of packed records agrees with that of the
// records.
func TestPackedSameSession(t *testing.T) {
	random := rand.New(rand.NewPCG(9, 10))
	for range 20_000 {
		a, b := randomRecord(random), randomRecord(random)
		p, q := a.Pack(), b.Pack()
		if got, want := p.SameSession(&q), a.SameSession(&b); got != want {
			t.Fatalf("%+v and %+v: %v, want %v", a, b, got, want)
		}
	}
}

// TestPackRefresh: a refresh changes the fields of a Partial change, and no
// others.
func TestPackRefresh(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for range 5_000 {
		before, after := randomRecord(random), randomRecord(random)
		after.Version = "1700000000001-7"
		p, change := before.Pack(), after.Pack()
		p.Refresh(&change)
		want := before
		want.UpdatedAt, want.ExpiresAt, want.Version = after.UpdatedAt, after.ExpiresAt, after.Version
		want.InputOctets, want.OutputOctets = after.InputOctets, after.OutputOctets
		if got := p.Record(); !reflect.DeepEqual(got, want) {
			t.Fatalf("refreshed\n%+v, want\n%+v", got, want)
		}
	}
}

// TestPackUnversioned: only the version is removed.
func TestPackUnversioned(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	for range 5_000 {
		want := randomRecord(random)
		before := want.Pack()
		after := before.Unversioned()
		if got := before.Record(); !reflect.DeepEqual(got, want) {
			t.Fatalf("the original became %+v, was %+v", got, want)
		}
		want.Version = ""
		if got := after.Record(); !reflect.DeepEqual(got, want) {
			t.Fatalf("unversioned\n%+v, want\n%+v", got, want)
		}
	}
}

func TestPackFarTimes(t *testing.T) {
	for _, year := range []int{1, 1600, 2262, 9999} {
		r := Record{StartedAt: time.Date(year, 12, 31, 0, 0, 0, 0, time.UTC), UpdatedAt: time.Unix(0, 0).UTC()}
		p := r.Pack()
		got := p.Record()
		if got.StartedAt.IsZero() || got.UpdatedAt.IsZero() || got.UpdatedAt.Sub(r.UpdatedAt) > time.Nanosecond {
			t.Errorf("year %d: %v, %v", year, got.StartedAt, got.UpdatedAt)
		}
	}
}

// TestPackedSize: most of a subscriber's memory is its packed record.
func TestPackedSize(t *testing.T) {
	if packed, record := unsafe.Sizeof(Packed{}), unsafe.Sizeof(Record{}); 3*packed > record {
		t.Errorf("%d octets of %d", packed, record)
	}
}

func randomRecord(random *rand.Rand) Record {
	text := func(parts ...string) string { return parts[random.IntN(len(parts))] }
	moment := func() time.Time {
		if random.IntN(4) == 0 {
			return time.Time{}
		}
		return time.Unix(random.Int64N(4e9), random.Int64N(1e9)).UTC()
	}
	addr := func() netip.Addr {
		switch random.IntN(4) {
		case 0:
			return netip.Addr{}
		case 1:
			return netip.MustParseAddr("2001:db8::1")
		}
		return netip.AddrFrom4([4]byte{100, 64, byte(random.Uint32()), byte(random.Uint32())})
	}
	long := strings.Repeat("x", 40_000)
	r := Record{
		Key:              Key{Group: text("", "default", "g2"), Inside: addr()},
		SessionID:        SessionID{Client: text("", "bng1"), NAS: text("", "nas7", "\x00]"), AcctSessionID: text("", "0000A1", long)},
		UserName:         text("", "alice@isp.example", "\xff\x00", long),
		CallingStationID: text("", "02:00:00:00:00:01", long),
		Classes:          Classes{Class: text("", "gold", "\x00\xff]", long)},
		NASAddress:       addr(),
		StartedAt:        moment(), UpdatedAt: moment(), ExpiresAt: moment(),
		Counters:    Counters{InputOctets: random.Uint64(), OutputOctets: random.Uint64N(3)},
		Unconfirmed: random.IntN(2) == 0,
		RemovalHeld: Reason(random.IntN(3)),
		Version:     text("", "-", "0-0", "1700000000000-3", "1700000000000-03", "18446744073709551615-18446744073709551615"),
	}
	if random.IntN(3) == 0 {
		r.Leg, r.MultiSessionID, r.Links = addr(), text("", "m1"), []string{"a", "b"}
		r.FramedIPv6Addresses = []netip.Addr{netip.MustParseAddr("2001:db8::2")}
		r.FramedIPv6Prefixes = []netip.Prefix{netip.MustParsePrefix("2001:db8:1::/64")}
		r.DelegatedPrefixes = []netip.Prefix{netip.MustParsePrefix("2001:db8:2::/48")}
		r.MoreClasses = []string{"silver", "\x00"}
	}
	return r
}

func BenchmarkPack(b *testing.B) {
	r := Record{
		Key:       Key{Group: "default", Inside: netip.MustParseAddr("100.64.0.7")},
		SessionID: SessionID{Client: "bng1", NAS: "nas7", AcctSessionID: "0000A1"},
		UserName:  "alice@isp.example", CallingStationID: "02:00:00:00:00:01", Version: "1700000000000-3",
	}
	b.ReportAllocs()
	for b.Loop() {
		p := r.Pack()
		r = p.Record()
	}
}
