package codec

import (
	"encoding/binary"
	"encoding/json"
	"net/netip"
	"reflect"
	"testing"
	"time"
	"unsafe"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// FuzzBindingValue: AppendBinding writes the same text as encoding/json, and it is parsed
// to the same binding.
func FuzzBindingValue(f *testing.F) {
	f.Add("u:alice", "alice", "0/0/0/7_0000A1", true, int64(1_772_359_200_000_000_001), []byte(nil))
	f.Add("", "a\xff", "<&>\"\\\u2028", false, int64(0), []byte{0x08, 0x00, 0x09, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, identity, user, session string, held bool, ns int64, further []byte) {
		b := nat.Binding{Group: "default", State: storedState(held), AllocatedAt: t0.Add(time.Second), Blocks: nat.Blocks{Block: nat.Block{Outside: netip.MustParseAddr("198.51.100.1"), First: 1024, Last: 1535}}, Holder: nat.Holder{Inside: addr, Identity: identity, UserName: user, AcctSessionID: session}}
		if ns != 0 {
			b.ReleasedAt, b.HoldUntil, b.GraceUntil = time.Unix(0, ns).UTC(), t0, t0.Add(time.Minute)
			b.GrownAt, b.FirstAt = b.ReleasedAt, b.ReleasedAt.Add(-time.Hour)
			b.Receipt = &nat.Receipt{Elements: 2, Deleted: 7, Proof: nat.ProofIndex, CutAt: b.ReleasedAt, ReapedAt: t0}
			b.Receipt.End = subscriber.End{Reason: subscriber.Reason(uint64(ns) % uint64(len(subscriber.Reasons()))), Cause: uint32(ns) >> 4}
		}
		var more [][2]nat.Port
		for ; len(further) >= 4; further = further[4:] {
			ports := [2]nat.Port{nat.Port(binary.BigEndian.Uint16(further)), nat.Port(binary.BigEndian.Uint16(further[2:]))}
			var ok bool
			if b.Blocks, ok = b.With(nat.Block{Outside: b.Outside, First: ports[0], Last: ports[1]}); ok {
				more = append(more, ports)
			}
		}
		var receipt *receiptValue
		if r := b.Receipt; r != nil {
			receipt = &receiptValue{r.Elements, r.Deleted, r.Proof.String(), r.CutAt, r.ReapedAt, r.ReleasedAt, r.Reason.String(), r.Cause}
		}
		got := string(AppendBinding(nil, &b))
		want, err := json.Marshal(bindingValue{
			b.Inside, b.Last, more, b.State == nat.Held, octets(b.Identity), octets(b.UserName), octets(b.AcctSessionID),
			b.AllocatedAt, b.FirstAt, b.GrownAt, b.ReleasedAt, b.HoldUntil, b.GraceUntil, receipt,
		})
		if err != nil || got != string(want) {
			t.Fatalf("written\n%s\nwant\n%s, %v", got, want, err)
		}
		again, err := ParseBinding("default", "198.51.100.1:1024", got)
		if err != nil || !reflect.DeepEqual(again, b) {
			t.Errorf("%s comes back as %+v, %v", got, again, err)
		}
	})
}

// FuzzReadBinding: readBinding returns the same binding as encoding/json.
func FuzzReadBinding(f *testing.F) {
	for _, text := range []string{
		`{"inside":"100.64.0.1","last":1535}`,
		`{"inside":"100.64.0.1","last":1535,"held":true,"identity":"u:a b/c","user_name":"a b/c","acct_session_id":"1","allocated_at":"2026-02-28T23:59:59.000000001Z","released_at":"2024-02-29T00:00:00.5Z","hold_until":"2026-03-01T10:00:00Z","grace_until":"2026-03-01T10:00:00.120Z","receipt":{"elements_removed":2,"sessions_deleted":0,"proof":"index","cut_at":"2026-03-01T10:00:00Z","reaped_at":"2026-03-01T10:00:00Z","released_at":"2026-03-01T10:00:00Z"}}`,
		`{"inside":"100.64.0.1","last":1535,"held":true,"receipt":{"elements_removed":2,"sessions_deleted":0,"released_at":"2026-03-01T10:00:00Z","reason":"STOP","terminate_cause":2}}`,
		`{"inside":"100.64.0.1","last":1535,"held":true,"receipt":{"elements_removed":2,"sessions_deleted":0,"reason":"OF_LATER","terminate_cause":0}}`,
		`{"inside":"100.64.0.1","last":1535,"more":[[2048,2559]],"held":true}`,
		`{"inside":"100.64.0.1","last":1535,"more":[[65535,65535],[2048,2559]]}`,
		`{"inside":"100.64.0.1","last":1535,"more":[]}`,
		`{"inside":"100.64.0.1","last":1535,"more":[[2048,2559],]}`,
		`{"inside":"100.64.0.1","last":1535,"more":[[2048,2559],[2559,3071]]}`,
		`{"inside":"2001:db8::1","last":0,"receipt":{"elements_removed":0,"sessions_deleted":12}}`,
		`{"inside":"100.64.0.1","last":01535}`,
		`{"inside":"100.64.0.1","last":70000}`,
		`{"inside":"100.64.0.1","last":1535,"user_name":"a\u0041"}`,
		`{"inside":"100.64.0.1","last":1535,"allocated_at":"2026-02-29T10:00:00Z"}`,
		`{"inside":"100.64.0.1","last":1535,"allocated_at":"2026-02-28T24:00:00Z"}`,
		`{"inside":"100.64.0.1","last":1535,"allocated_at":"0000-01-01T10:00:00.0000000001Z"}`,
		`{"inside":"100.64.0.1","last":1535}x`, `{"last":1,"inside":"100.64.0.1"}`, `{}`, ``,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		place := nat.Place{Outside: addr, First: 1024}
		got, ok := readBinding(place, text)
		if !ok {
			return
		}
		var v bindingValue
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			t.Fatalf("%s is read as %+v, and is %v", text, got, err)
		}
		if want, err := v.binding("", place); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s is read as\n%+v, want\n%+v, %v", text, got, want, err)
		}
	})
}

// TestFurtherBlocks: the further blocks of a binding are read in their order, by both
// readers, and one with a block that cannot be is refused.
func TestFurtherBlocks(t *testing.T) {
	three, _ := nat.Blocks{Block: nat.Block{Outside: addr, First: 2048, Last: 2559}}.With(nat.Block{Outside: addr, First: 1024, Last: 1535})
	three, _ = three.With(nat.Block{Outside: addr, First: 65024, Last: 65535})
	for _, c := range []struct {
		more string
		want nat.Blocks // zero: refused
	}{
		{`[[1024,1535],[65024,65535]]`, three},
		{` [ [1024, 1535], [65024,65535] ]`, three}, // edited by a person
		{`[]`, nat.Blocks{Block: three.Block}},
		{`null`, nat.Blocks{Block: three.Block}},
		{`[[2559,3071]]`, nat.Blocks{}},
		{`[[1024,1535],[1024,1535]]`, nat.Blocks{}},
		{`[[1535,1024]]`, nat.Blocks{}},
		{`[[1024]]`, nat.Blocks{}},
		{`[[]]`, nat.Blocks{}},
		{`[[0,511]]`, nat.Blocks{}},
		{`[[1024,70000]]`, nat.Blocks{}},
		{`[[-1,1535]]`, nat.Blocks{}},
		{`[["1024","1535"]]`, nat.Blocks{}},
		{`[1024,1535]`, nat.Blocks{}},
		{`[[1024,1535]`, nat.Blocks{}},
	} {
		got, err := ParseBinding("default", addr.String()+":2048", `{"inside":"100.64.0.1","last":2559,"more":`+c.more+`}`)
		if refused := c.want == (nat.Blocks{}); got.Blocks != c.want || (err != nil) != refused {
			t.Errorf("%s is read as %s, %v; want %s", c.more, got.Ports(), err, c.want.Ports())
		}
	}
}

// FuzzReadStamp: readStamp returns the same time as time.Parse.
func FuzzReadStamp(f *testing.F) {
	f.Add("2026-02-28T23:59:59.000000001Z")
	f.Add("2026-12-31T00:00:00Z")
	f.Add("2026-04-31T00:00:00Z")
	f.Fuzz(func(t *testing.T, text string) {
		got, ok := readStamp(text)
		if !ok {
			return
		}
		if want, err := time.Parse(time.RFC3339Nano, text); err != nil || got != want {
			t.Errorf("%q is read as %v, want %v, %v", text, got, want, err)
		}
	})
}

// TestReadBindingKeepsNothing: a binding keeps no memory but its own texts, and readBinding
// can parse the usual rows.
func TestReadBindingKeepsNothing(t *testing.T) {
	for _, user := range []string{"alice@example.net", "", "b"} {
		want := nat.Binding{State: nat.Held, AllocatedAt: t0.Add(1), ReleasedAt: t0, HoldUntil: t0.Add(time.Hour), Receipt: &nat.Receipt{Proof: nat.ProofTable, CutAt: t0}, Blocks: nat.Blocks{Block: nat.Block{Outside: addr, First: 1024, Last: 1535}}, Holder: nat.Holder{Inside: addr, Identity: "u:" + user, UserName: user, AcctSessionID: "0000A1"}}
		text := string(AppendBinding(nil, &want))
		got, ok := readBinding(want.Place(), text)
		if !ok || !reflect.DeepEqual(got, want) {
			t.Fatalf("%s is read as %+v, %v", text, got, ok)
		}
		from := uintptr(unsafe.Pointer(unsafe.StringData(text)))
		for _, part := range []string{got.Identity, got.UserName, got.AcctSessionID} {
			if at := uintptr(unsafe.Pointer(unsafe.StringData(part))); part != "" && at >= from && at < from+uintptr(len(text)) {
				t.Errorf("%q is a part of the row", part)
			}
		}
	}
}
