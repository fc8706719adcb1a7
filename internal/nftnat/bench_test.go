package nftnat

import (
	"context"
	"net/netip"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/vishvananda/netns"
)

// benchBatch is the number of addresses that one call programs.
const benchBatch = 1000

func benchEntries(gate nat.Gate) []nat.Entry {
	entries := make([]nat.Entry, benchBatch)
	for i := range entries {
		entries[i] = blockOf(netip.AddrFrom4([4]byte{100, 65, byte(i >> 8), byte(i)}), gate, i%100)
	}
	return entries
}

// BenchmarkApply opens and cuts addresses in batches: two elements of two maps
// for each.
func BenchmarkApply(b *testing.B) {
	lab := newLab(b)
	k := openForTraffic(b, labOptions(lab))
	ctx := context.Background()
	open, closed := benchEntries(nat.GateOpen), benchEntries(nat.GateClosed)
	b.ReportAllocs()
	for b.Loop() {
		for _, entries := range [][]nat.Entry{open, closed} {
			if err := k.Apply(ctx, entries); err != nil {
				b.Fatal(err)
			}
		}
	}
	reportRate(b)
}

// BenchmarkApplyOne opens and cuts one address, as one Start and Stop do.
func BenchmarkApplyOne(b *testing.B) {
	lab := newLab(b)
	k := openForTraffic(b, labOptions(lab))
	ctx := context.Background()
	open, closed := []nat.Entry{blockOf(alice, nat.GateOpen, 0)}, []nat.Entry{{Inside: alice}}
	b.ReportAllocs()
	for b.Loop() {
		for _, entries := range [][]nat.Entry{open, closed} {
			if err := k.Apply(ctx, entries); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkRawLibrary does the same with google/nftables alone: the same
// elements, in maps of the same types, in batches of the same size.
func BenchmarkRawLibrary(b *testing.B) {
	lab := newLab(b)
	ns, err := netns.GetFromName(lab.CGN.Name())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = ns.Close() })
	conn, err := nftables.New(nftables.WithNetNSFd(int(ns)), nftables.AsLasting())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.CloseLasting() })
	gate, blocks := rawMaps(b, conn)
	gates, values := rawElements()
	b.ReportAllocs()
	for b.Loop() {
		for _, change := range []func(*nftables.Set, []nftables.SetElement) error{conn.SetAddElements, conn.SetDeleteElements} {
			if err := change(gate, gates); err != nil {
				b.Fatal(err)
			}
			if err := change(blocks, values); err != nil {
				b.Fatal(err)
			}
			if err := conn.Flush(); err != nil {
				b.Fatal(err)
			}
		}
	}
	reportRate(b)
}

func rawMaps(b *testing.B, conn *nftables.Conn) (gate, blocks *nftables.Set) {
	b.Helper()
	table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "raw"})
	gate = &nftables.Set{Table: table, Name: mapGate, IsMap: true, KeyType: nftables.TypeIPAddr, DataType: nftables.TypeVerdict}
	blocks = &nftables.Set{
		Table: table, Name: mapBlock, IsMap: true, KeyType: nftables.TypeIPAddr,
		DataType: nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService, nftables.TypeIPAddr, nftables.TypeInetService),
	}
	for _, s := range []*nftables.Set{gate, blocks} {
		if err := conn.AddSet(s, nil); err != nil {
			b.Fatal(err)
		}
	}
	if err := conn.Flush(); err != nil {
		b.Fatal(err)
	}
	return gate, blocks
}

func rawElements() (gates, values []nftables.SetElement) {
	for _, e := range benchEntries(nat.GateOpen) {
		key, outside := e.Inside.AsSlice(), e.Outside.AsSlice()
		value := append(append([]byte{}, outside...), byte(e.First>>8), byte(e.First), 0, 0)
		value = append(append(value, outside...), byte(e.Last>>8), byte(e.Last), 0, 0)
		gates = append(gates, nftables.SetElement{Key: key, VerdictData: &expr.Verdict{Kind: expr.VerdictReturn}})
		values = append(values, nftables.SetElement{Key: key, Val: value})
	}
	return gates, values
}

func reportRate(b *testing.B) {
	b.ReportMetric(float64(b.N)*benchBatch*2/b.Elapsed().Seconds(), "addresses/s")
}
