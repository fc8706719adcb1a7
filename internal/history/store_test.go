package history

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
)

// TestRefusals: bad input gets an error that names it, and changes nothing.
func TestRefusals(t *testing.T) {
	key := testKey(t)
	for name, o := range map[string]Options{
		"Path": {Key: key}, "Key": {Path: t.TempDir()}, "MaxAge": {Path: t.TempDir(), Key: key, MaxAge: -1},
	} {
		if _, err := Open(o); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("without %s: %v", name, err)
		}
	}
	o := Options{Path: t.TempDir(), Key: key}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := Open(o); !errors.Is(err, ErrLocked) {
		t.Errorf("opened twice: %v", err)
	}
	if err := s.Append(Batch{Group: "default"}); !errors.Is(err, ErrNotBegun) {
		t.Errorf("a group without a history: %v", err)
	}
	if err := s.Resume(Restart{Group: "default", Epoch: "a", Position: "5-1", To: worldStart}); err != nil {
		t.Fatal(err)
	}
	if err := s.Append(Batch{Group: "default", Epoch: "b"}); !errors.Is(err, ErrEpoch) {
		t.Errorf("another epoch: %v", err)
	}
	block := nat.Block{Outside: outsideOf(1), First: 1024, Last: 2047}
	for name, e := range map[string]nat.Event{
		"group":  {Kind: nat.Allocated, At: worldStart, Group: "east", Block: block},
		"IPv4":   {Kind: nat.Allocated, At: worldStart, Block: nat.Block{Outside: netip.MustParseAddr("2001:db8::1"), Last: 1}},
		"port":   {Kind: nat.Allocated, At: worldStart, Block: nat.Block{Outside: outsideOf(1), First: 2, Last: 1}},
		"time":   {Kind: nat.Allocated, Block: block},
		"its al": {Kind: nat.Released, At: worldStart, Block: block},
	} {
		err := s.Append(Batch{Group: "default", Epoch: "a", Entries: []Entry{{"6-1", []nat.Event{{Kind: nat.LimitReached}, e}}}})
		if err == nil || !strings.Contains(err.Error(), "entry 6-1: event 2") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if p, _ := s.Progress("default"); p.Position != "5-1" {
		t.Errorf("position %s after refusals", p.Position)
	}
	if a, err := s.LookupOutside(Question{Group: "east", Outside: outsideOf(1), Port: 1024, At: worldStart}); err != nil || a.Because != CauseNoGroup {
		t.Errorf("%+v, %v", a, err)
	}
}

// TestEdges: a record has its first microsecond, and not the one of its release; behind it is
// the quarantine.
func TestEdges(t *testing.T) {
	s, _ := filled(t, 10)
	before := time.Date(2026, 3, 3, 0, 0, 0, 0, time.UTC)
	list, _, err := s.ListRecords(Filter{User: identityOf(3, time.Time{}).UserName, To: before}, "", 1)
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	r := list[0]
	for _, c := range []struct {
		at          time.Time
		state       State
		quarantined bool
	}{
		{r.Allocated.Add(-time.Microsecond), Nobody, false},
		{r.Allocated, Held, false},
		{r.Released.Add(-time.Nanosecond), Held, false},
		{r.Released, Nobody, true},
		{r.Released.Add(2*time.Second - time.Microsecond), Nobody, true},
		{r.Released.Add(2 * time.Second), Nobody, false},
	} {
		for _, port := range []nat.Port{r.First, r.Last} {
			a, err := s.LookupOutside(Question{Outside: r.Outside, Port: port, At: c.at, Quarantine: 2 * time.Second})
			if err != nil || a.State != c.state || a.Quarantined != c.quarantined {
				t.Errorf("port %d at %s: %+v, %v; want %+v", port, c.at, a, err, c)
			}
			if c.at.After(r.Released) && (!a.LastKnown || !a.Record.Allocated.Equal(r.Allocated)) {
				t.Errorf("the last holder is %+v", a.Record)
			}
		}
	}
}

// TestPages: pages of any size have each record once, of users, inside addresses and outside
// addresses.
func TestPages(t *testing.T) {
	w := newWalk(t, 3, testKey(t))
	w.steady = true // a clock that is set back may list a record twice
	for range 40 {
		for range 8 {
			w.step()
		}
		w.feed()
	}
	for user := range 40 {
		want := map[string]bool{}
		for _, x := range w.all {
			if x.user == user {
				want[fmt.Sprint(x.block, identityOf(user, x.from).AcctSessionID)] = true
			}
		}
		id := identityOf(user, time.Time{})
		for _, f := range []Filter{{User: id.UserName}, {Inside: id.Inside}, {User: id.UserName, Inside: id.Inside}} {
			got, size := map[string]bool{}, 1+w.rnd.IntN(20)
			for page := ""; ; {
				list, next, err := w.store.ListRecords(f, page, size)
				if err != nil || len(list) > size {
					t.Fatal(len(list), err)
				}
				for _, r := range list {
					name := fmt.Sprint(r.Block, r.Holder.AcctSessionID)
					if got[name] || !want[name] {
						t.Fatalf("user %d: %s is listed twice, or is not the user's", user, name)
					}
					got[name] = true
				}
				if page = next; page == "" {
					break
				}
			}
			if len(got) != len(want) {
				t.Fatalf("user %d, %+v: %d records, want %d", user, f, len(got), len(want))
			}
		}
	}
	for range 100 {
		at := w.first.Add(time.Duration(w.rnd.Int64N(int64(w.through.Sub(w.first)))))
		if w.inGap(at) {
			continue
		}
		outside, page, got := outsideOf(w.rnd.IntN(3)), "", 0
		for {
			c, err := w.store.ListHolders("", outside, at, page, 2)
			if err != nil || c.Because != "" {
				t.Fatal(c, err)
			}
			for _, r := range c.Records {
				state, _, user := w.expected(outside, r.First, at, w.through)
				if state != Held || r.Holder.UserName != identityOf(user, at).UserName {
					t.Fatalf("%+v at %s, want user %d", r, at, user)
				}
			}
			got += len(c.Records)
			if page = c.Next; page == "" {
				break
			}
		}
		want := 0
		for first := nat.Port(1024); first < 5*1024; first += 1024 {
			if state, _, _ := w.expected(outside, first, at, w.through); state == Held {
				want++
			}
		}
		if got != want {
			t.Fatalf("%s at %s: %d holders, want %d", outside, at, got, want)
		}
	}
	if err := w.store.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestRetention: by age and by size the oldest files go, the rest verifies, and their time is
// answered with BEFORE.
func TestRetention(t *testing.T) {
	for name, c := range map[string]struct {
		set   func(*Options)
		first int // day that is kept
	}{
		"age":  {func(o *Options) { o.MaxAge = 36 * time.Hour }, 2},
		"size": {func(o *Options) { o.MaxOctets = 1 }, 3}, // the last complete one stays
	} {
		t.Run(name, func(t *testing.T) {
			s, o := filled(t, 50)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			c.set(&o)
			s, err := Open(o)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Maintain(time.Date(2026, 3, 4, 14, 0, 0, 0, time.UTC)); err != nil {
				t.Fatal(err)
			}
			p, _ := s.Progress("default")
			if p.First.Day() != c.first {
				t.Errorf("the history begins at %s, want day %d", p.First, c.first)
			}
			a, err := s.LookupOutside(Question{Outside: outsideOf(0), Port: 1024, At: time.Date(2026, 3, 1, 12, 0, 30, 0, time.UTC)})
			if err != nil || a.Because != CauseBefore {
				t.Errorf("%+v, %v", a, err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if flaw, err := reopened(t, o); err != nil || flaw != nil {
				t.Errorf("%+v, %v", flaw, err)
			}
		})
	}
}

// TestKey: a key is made once, and reads back; another file is refused.
func TestKey(t *testing.T) {
	path := t.TempDir() + "/key"
	first, err := LoadKey(path, "cgn1")
	if err != nil {
		t.Fatal(err)
	}
	second, err := LoadKey(path, "other")
	if err != nil || second.Public() != first.Public() || !strings.HasPrefix(first.Public(), "cgn1+") {
		t.Errorf("%q, then %q, %v", first.Public(), second.Public(), err)
	}
	if err := os.WriteFile(path, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadKey(path, "cgn1"); err == nil {
		t.Error("a file of something else is a key")
	}
	if _, err := LoadKey(t.TempDir()+"/key", "two words"); err == nil {
		t.Error("a name with a space is one of a key")
	}
}

// TestCombine compares the spans of two journals in succession with those of one.
func TestCombine(t *testing.T) {
	for seed := range uint64(500) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		whole, parts := newBook(), [2]*spanBook{newBook(), newBook()}
		open := map[blockKey]microTime{}
		from := microTime(0)
		for at := microTime(1); at < 60; at++ {
			if at == 30 {
				from = at
			}
			part := parts[min(int(at/30), 1)]
			k := blockKey{uint32(rnd.IntN(2)), nat.Port(8 * rnd.IntN(3)), 0}
			k.last = k.first + 7
			since, held := open[k]
			if !held {
				s := span{blockKey: k, allocated: at, released: never, vacant: never}
				whole.begin(s)
				part.begin(s)
				open[k] = at
				continue
			}
			delete(open, k)
			whole.end(k, at)
			if since >= from {
				part.end(k, at)
			} else {
				part.begin(span{blockKey: k, allocated: since, released: at, vacant: at})
			}
		}
		for a := range uint32(2) {
			got := combine(parts[0].within(nil, a, 0, 100), parts[1].within(nil, a, 0, 100), nil, from)
			want := whole.within(nil, a, 0, 100)
			over := func(s span) bool { return s.vacant <= from }
			got, want = slices.DeleteFunc(got, over), slices.DeleteFunc(want, over)
			if !slices.Equal(got, want) {
				t.Fatalf("seed %d: %v, want %v", seed, got, want)
			}
		}
	}
}
