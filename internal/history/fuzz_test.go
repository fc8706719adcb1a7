package history

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
)

// FuzzIdentity: what is read is written the same, but for the bits of a prefix beyond its length.
func FuzzIdentity(f *testing.F) {
	id := identityOf(7, worldStart)
	f.Add(appendIdentity(nil, &id))
	f.Add(appendIdentity(nil, &nat.Identity{}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		id, err := parseIdentity(raw)
		if err != nil {
			return
		}
		again, err := parseIdentity(appendIdentity(nil, &id))
		if err != nil || !reflect.DeepEqual(id, again) {
			t.Errorf("%+v, then %+v, %v", id, again, err)
		}
	})
}

// TestIdentities: every field comes back, with any octets.
func TestIdentities(t *testing.T) {
	long := string(bytes.Repeat([]byte{0, 0xff, '\n'}, 200))
	for _, want := range []nat.Identity{
		{},
		identityOf(300, worldStart),
		{UserName: long, Client: long, NAS: long, AcctSessionID: long, CallingStationID: long, NASAddress: netip.MustParseAddr("2001:db8::1")},
		{Inside: netip.MustParseAddr("100.64.0.1"), IPv6Prefixes: []netip.Prefix{netip.MustParsePrefix("::/0"), netip.MustParsePrefix("2001:db8::1/128"), netip.MustParsePrefix("2001:db8:8000::/33")}},
	} {
		got, err := parseIdentity(appendIdentity(nil, &want))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, %v, want %+v", got, err, want)
		}
	}
}

// FuzzEntry: an entry that is read is written with the same octets, or others of the same
// meaning; no octets panic.
func FuzzEntry(f *testing.F) {
	id := identityOf(7, worldStart)
	for kind := entryBegin; kind <= entryKept; kind++ {
		e := journalEntry{kind: kind, key: blockKey{1, 1024, 2047}, at: 1e15, since: 1e14, until: 2e15, text: "text", id: "1-1", number: 3, before: 4}
		e.holder.identity = appendIdentity(nil, &id)
		raw := e.appendFields(nil)
		if kind.hasHolder() {
			raw = e.holder.append(raw)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, fields, err := parseEntry(raw)
		if err != nil {
			return
		}
		text := e.appendFields(nil)
		n := len(text)
		if e.kind.hasHolder() {
			text = e.holder.append(text)
		}
		again, m, err := parseEntry(text)
		if err != nil || n != m || !reflect.DeepEqual(e, again) || fields > len(raw) {
			t.Errorf("%+v, then %+v, %v", e, again, err)
		}
	})
}

// FuzzJournal: a journal of any octets is read or refused, and the check of it ends.
func FuzzJournal(f *testing.F) {
	var w frameWriter
	w.begin(0, chainHash{})
	w.add(journalEntry{kind: entryBegin, at: 1e15, number: 1, text: "default"})
	id := identityOf(7, worldStart)
	w.add(journalEntry{kind: entryAllocated, key: blockKey{1, 1024, 2047}, at: 1e15, since: 1e15, holder: holderData{identity: appendIdentity(nil, &id)}})
	f.Add(w.finish())
	f.Fuzz(func(t *testing.T, raw []byte) {
		c := &journalCheck{}
		c.check(raw, "journal")
		path := filepath.Join(t.TempDir(), "journal")
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		j, err := openJournal(osFiles{}, path, func(*journalEntry) {})
		if j != nil && j.file != nil {
			_ = j.file.Close()
		}
		if err == nil && j.size == int64(len(raw)) && j.entries == 0 {
			t.Error("a journal without an entry is taken")
		}
	})
}

// FuzzBlocks: blocks of any octets are read or refused.
func FuzzBlocks(f *testing.F) {
	spans := []span{
		{blockKey: blockKey{1, 1024, 2047}, allocated: 5, released: never, vacant: never, ref: 1},
		{blockKey: blockKey{1, 2048, 3071}, allocated: 1, released: 7, vacant: 9, ref: 0},
	}
	id := identityOf(7, worldStart)
	rows := []holderRow{{holderData: holderData{identity: appendIdentity(nil, &id)}, spans: []uint64{0, 5}}, {holderData: holderData{hash: sha256.Sum256(nil)}}}
	holders, err := encodeHolders(nil, rows)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(encodeSpans(nil, &spanBlock{spans, []byte("abcd"), newSeeds(1)[0]}), 2)
	f.Add(holders, 2)
	var many []holderRow
	for i := range 100 {
		id := identityOf(i*i, worldStart.Add(time.Duration(i)*time.Minute))
		many = append(many, holderRow{holderData: holderData{identity: appendIdentity(nil, &id)}, spans: []uint64{uint64(i % 7)}})
	}
	if holders, err = encodeHolders(nil, many); err != nil {
		f.Fatal(err)
	}
	f.Add(holders, len(many))
	f.Add(encodeInsides(nil, []insideRow{{[]byte{100, 64, 0, 1}, 1}, {[]byte{100, 64, 0, 2}, 0}}), 2)
	f.Add(encodeIndex(nil, &tableIndex{keys: [][]byte{{1}, {2}}, offsets: []int64{0, 10, 20}}), 2)
	f.Fuzz(func(t *testing.T, raw []byte, n int) {
		if n < 0 || n > 1000 {
			return
		}
		sealed := binary.BigEndian.AppendUint32(nil, crc32.Checksum(raw[min(4, len(raw)):], castagnoli))
		sealed = append(sealed, raw[min(4, len(raw)):]...)
		for _, raw := range [][]byte{raw, sealed} {
			if b, err := decodeSpans(raw, n, nil); err == nil {
				again, err := decodeSpans(encodeSpans(nil, &b), n, nil)
				if err != nil || !reflect.DeepEqual(b, again) {
					t.Errorf("%+v, then %+v, %v", b, again, err)
				}
			}
			if rows, err := decodeHolders(raw, n, everyRow); err == nil && n > 0 {
				one, err := decodeHolders(raw, n, n/2)
				if err != nil || !reflect.DeepEqual(one[0], rows[n/2]) {
					t.Errorf("row %d alone is %+v, %v, not %+v", n/2, one, err, rows[n/2])
				}
			}
			_, _ = decodeInsides(raw, n)
			_, _ = decodeIndex(raw, n, 0, 1<<20)
		}
	})
}

// TestBlocks: rows of any kind come back.
func TestBlocks(t *testing.T) {
	id := identityOf(7, worldStart)
	rows := []holderRow{
		{holderData: holderData{hash: sha256.Sum256(nil)}, spans: []uint64{9, 70000}},
		{holderData: holderData{identity: appendIdentity(nil, &id)}, spans: []uint64{}},
	}
	raw, err := encodeHolders(nil, rows)
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeHolders(raw, len(rows), everyRow)
	if err != nil || !reflect.DeepEqual(got, rows) {
		t.Errorf("%+v, %v, want %+v", got, err, rows)
	}
	for i := range raw {
		bad := bytes.Clone(raw)
		bad[i] ^= 16
		if _, err := decodeHolders(bad, len(rows), everyRow); err == nil {
			t.Errorf("octet %d can be another", i)
		}
	}
}

// TestColumns: columns of any kind come back, each in several forms.
func TestColumns(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 9))
		n := rnd.IntN(300)
		numbers, texts, addresses := make([]uint64, n), make([][]byte, n), make([][]byte, n)
		width, zeros, last := rnd.IntN(65), rnd.IntN(3), rnd.Uint32()
		for i := range numbers {
			if rnd.IntN(3) >= zeros {
				numbers[i] = rnd.Uint64() >> (64 - width)
			}
			switch seed % 4 {
			case 0:
				texts[i] = fmt.Appendf(nil, "%02x-%04x", rnd.IntN(3), rnd.IntN(1<<16))
			case 1:
				texts[i] = fmt.Appendf(nil, "user%d", i*i)
			case 2:
				texts[i] = []byte{"\x00ab"[rnd.IntN(3)], byte(rnd.Uint32())}
			default:
				texts[i] = fmt.Appendf(nil, "%0*x", 8*rnd.IntN(4), rnd.Uint64())
			}
			last += rnd.Uint32N(1 << (seed % 32))
			addresses[i] = binary.BigEndian.AppendUint32(nil, last)
			if seed%5 == 0 && rnd.IntN(20) == 0 {
				addresses[i] = []byte{}
			}
		}
		var w partWriter
		w.numbers(numbers)
		w.strings(texts)
		w.addresses(addresses)
		r, err := readParts(w.append(nil))
		if err != nil {
			t.Fatal(seed, err)
		}
		same := func(a, b []byte) bool { return bytes.Equal(a, b) }
		if got := r.numbers(n); !slices.Equal(got, numbers) {
			t.Errorf("seed %d: %v, want %v", seed, got, numbers)
		}
		if got := r.strings(n); !slices.EqualFunc(got, texts, same) {
			t.Errorf("seed %d: %q, want %q", seed, got, texts)
		}
		if got := r.addresses(n); !slices.EqualFunc(got, addresses, same) {
			t.Errorf("seed %d: %v, want %v", seed, got, addresses)
		}
		if err := r.done(); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
		r.free()
	}
}

// FuzzDay: a day's file of any octets is read or refused.
func FuzzDay(f *testing.F) {
	key := testKey(f)
	path := filepath.Join(f.TempDir(), "day")
	id := identityOf(7, worldStart)
	c := &dayContent{
		dayNote: dayNote{group: "default", number: 1},
		list:    []span{{blockKey: blockKey{1, 1024, 2047}, allocated: 5, released: 9, vacant: 9}},
		holders: []holderData{{identity: appendIdentity(nil, &id)}},
	}
	if err := writeDay(osFiles{}, path, c, key.sign); err != nil {
		f.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := parseDay(bytes.NewReader(raw), int64(len(raw)))
		if err != nil {
			return
		}
		_, _ = r.all()
		_, _ = r.within(nil, 1, 1024, 1024)
		_, _ = r.matching(&Filter{User: id.UserName})
		_, _ = r.matching(&Filter{Inside: id.Inside})
	})
}

// FuzzNote: a checkpoint that is read is written the same.
func FuzzNote(f *testing.F) {
	n := dayNote{group: "a/b", spans: 3, number: 2, to: 10, gaps: []Gap{{Group: "a/b", From: time.UnixMicro(1).UTC(), To: time.UnixMicro(2).UTC(), Reason: "the clock was set back"}}}
	f.Add(n.text())
	f.Add(logNote("default", 7, chainHash{1}, 5))
	f.Fuzz(func(t *testing.T, text string) {
		if n, err := parseDayNote(text); err == nil && n.text() != text {
			t.Errorf("%q, then %q", text, n.text())
		}
		_, _, _, _ = parseLogNote(text)
		_ = textOf(text)
	})
}

// FuzzProof: no octets of a proof panic, or verify by a key that did not sign.
func FuzzProof(f *testing.F) {
	f.Add([]byte(`{"checkpoint":"","index":0,"holder":"AA==","path":[]}`))
	key := testKey(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		if r, err := VerifyProof(text, key.Public()); err == nil {
			t.Errorf("%+v is proved by nothing", r)
		}
	})
}

// FuzzPage: the text of a page is read as it was written.
func FuzzPage(f *testing.F) {
	f.Add(listPage{"default", 3, 7}.text())
	f.Fuzz(func(t *testing.T, text string) {
		if p, err := parsePage(text); err == nil && text != "" {
			if again, err := parsePage(p.text()); err != nil || again != p {
				t.Errorf("%+v, then %+v, %v", p, again, err)
			}
		}
	})
}
