package nases

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"strconv"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
)

func keyOf(client string) codec.NASName { return codec.NASName{Client: client, Name: "nas1"} }

// heardOf places an event of a NAS that arrives without delay; the NAS's clock is ahead by
// the given time.
func heardOf(r *Registry, key codec.NASName, at time.Time, ahead time.Duration) subscriber.Event {
	ev := subscriber.Event{
		Kind: subscriber.EventInterim, SessionID: key.Session(), Arrival: at, Stamp: at.Add(ahead), Delay: -1, SessionTime: -1,
	}
	r.Place(&ev)
	return ev
}

// TestUnite_SES16: every name of a NAS leads to one name, without cycles, in any order of
// findings.
func TestUnite_SES16(t *testing.T) {
	type pair struct{ name, known string }
	for _, tt := range []struct {
		found []pair
		news  int
		want  map[string]string // original by name
	}{
		{nil, 0, map[string]string{"a": "a"}},
		{[]pair{{"b", "a"}}, 1, map[string]string{"a": "a", "b": "a"}},
		{[]pair{{"b", "a"}, {"b", "a"}}, 1, map[string]string{"b": "a"}},
		{[]pair{{"a", "a"}}, 0, map[string]string{"a": "a"}},
		{[]pair{{"b", "a"}, {"a", "b"}}, 1, map[string]string{"a": "a", "b": "a"}},
		{[]pair{{"b", "a"}, {"c", "b"}}, 2, map[string]string{"a": "a", "b": "a", "c": "a"}},
		{[]pair{{"b", "a"}, {"a", "c"}}, 2, map[string]string{"a": "c", "b": "c", "c": "c"}},
		{[]pair{{"b", "a"}, {"a", "c"}, {"c", "b"}}, 2, map[string]string{"a": "c", "b": "c", "c": "c"}},
	} {
		r := NewRegistry(nil)
		news := 0
		for _, p := range tt.found {
			if r.Unite(keyOf(p.name), keyOf(p.known)) {
				news++
			}
		}
		for name, want := range tt.want {
			if got := r.Original(keyOf(name)); got != keyOf(want) {
				t.Errorf("%v: %s is %v, want %s", tt.found, name, got, want)
			}
			if ev := heardOf(r, keyOf(name), t0, 0); ev.Client != want {
				t.Errorf("%v: an event of %s is placed at %s, want %s", tt.found, name, ev.Client, want)
			}
		}
		if news != tt.news {
			t.Errorf("%v: %d were news, want %d", tt.found, news, tt.news)
		}
	}
}

// TestHeardThroughAnother: a NAS that is reported under another name only is not dropped.
func TestHeardThroughAnother(t *testing.T) {
	r := NewRegistry(nil)
	heardOf(r, keyOf("a"), t0, 0)
	r.Unite(keyOf("b"), keyOf("a"))
	heardOf(r, keyOf("b"), t0.Add(time.Hour), 0)
	for _, name := range []string{"a", "b"} {
		if got := r.byKey[keyOf(name)].heard; !got.Equal(t0.Add(time.Hour)) {
			t.Errorf("%s was last heard of at %v", name, got)
		}
	}
}

// TestUnsaid: data that could not be written are written the next time, once, with those
// added meanwhile.
func TestUnsaid(t *testing.T) {
	r := NewRegistry(nil)
	heardOf(r, keyOf("a"), t0, 0)
	heardOf(r, keyOf("b"), t0, 0)
	for range 3 {
		r.Refuse(keyOf("a").Session(), subscriber.Stale)
	}
	first := r.news(10)
	r.Refuse(keyOf("a").Session(), subscriber.Stale)
	r.Refuse(keyOf("a").Session(), subscriber.Held)
	r.unsaid(first)
	if n := r.pending(); n != 2 {
		t.Fatalf("%d NASes are to be written, want 2", n)
	}
	counts := map[string]map[subscriber.Verdict]uint64{}
	for r.pending() > 0 {
		for _, n := range r.news(1) {
			counts[n.entry.key.Client] = n.refused
		}
	}
	want := map[string]map[subscriber.Verdict]uint64{"a": {subscriber.Stale: 4, subscriber.Held: 1}, "b": nil}
	if !reflect.DeepEqual(counts, want) {
		t.Errorf("counts %v, want %v", counts, want)
	}
	if list := r.news(10); len(list) != 0 {
		t.Errorf("written again: %+v", list)
	}
}

// TestAdopt: of data from another run the newer ones are kept, and the clock offset from
// before a restart of the NAS is not taken.
func TestAdopt(t *testing.T) {
	const line = "heard=2026-03-01T10:00:00Z offset=-3600 restarted=2026-03-01T09:00:00Z same_as=b/nas1"
	now := t0.Add(time.Hour)
	adopted := func(prepare func(r *Registry)) (*nasEntry, time.Duration, bool) {
		r := NewRegistry(nil)
		prepare(r)
		r.adopt(keyOf("a"), line, now)
		e := r.byKey[keyOf("a")]
		offset, known := e.clock.Offset()
		return e, offset, known
	}
	e, offset, known := adopted(func(*Registry) {})
	if !e.heard.Equal(t0) || !e.restarted.Equal(t0.Add(-time.Hour)) || e.sameAs != keyOf("b") || offset != -time.Hour || !known || e.changed {
		t.Errorf("adopted %+v, offset %v", e, offset)
	}
	e, offset, _ = adopted(func(r *Registry) {
		heardOf(r, keyOf("a"), now, 0)
		r.Restart(keyOf("a").Session(), now)
		heardOf(r, keyOf("a"), now, time.Minute)
		r.Unite(keyOf("a"), keyOf("c"))
	})
	if !e.heard.Equal(now) || !e.restarted.Equal(now) || e.sameAs != keyOf("c") || offset != time.Minute {
		t.Errorf("over what is known, adopted %+v, offset %v", e, offset)
	}
	if _, _, known := adopted(func(r *Registry) { r.Restart(keyOf("a").Session(), now) }); known {
		t.Error("the clock of before a restart was adopted")
	}
	if e, _, _ = adopted(func(r *Registry) { r.Unite(keyOf("b"), keyOf("a")) }); e.sameAs != (codec.NASName{}) {
		t.Errorf("two names that stand for each other: %v", e.sameAs)
	}
}

// TestUnheeded: a clock at 1970 is listed, though no offset is learned from it.
func TestUnheeded(t *testing.T) {
	r := NewRegistry(nil)
	const years = 56 * 365 * 24 * time.Hour
	tell := func() codec.NASLine { return codec.ParseNASLine(r.byKey[keyOf("a")].textLocked()) }
	heardOf(r, keyOf("a"), t0, -years)
	if n := tell(); n.Unheeded != -years || n.Known {
		t.Errorf("at 1970: %+v", n)
	}
	late := subscriber.Event{Kind: subscriber.EventInterim, SessionID: keyOf("a").Session(), Arrival: t0, Stamp: t0, Delay: time.Hour}
	r.Place(&late)
	silent := subscriber.Event{Kind: subscriber.EventInterim, SessionID: keyOf("a").Session(), Arrival: t0, Delay: -1}
	r.Place(&silent)
	if n := tell(); n.Unheeded != -years {
		t.Errorf("after events that tell nothing of the clock: %+v", n)
	}
	heardOf(r, keyOf("a"), t0.Add(time.Minute), time.Second)
	if n := tell(); n.Unheeded != 0 || !n.Known || n.Offset != time.Second {
		t.Errorf("once it was set: %+v", n)
	}
}

// TestTooManyNASes_I10: events of NASes beyond the limit are placed without entries; NASes
// that were silent for long make room.
func TestTooManyNASes_I10(t *testing.T) {
	r := NewRegistry(nil)
	for i := range maxOfClient {
		heardOf(r, codec.NASName{Client: "a", Name: fmt.Sprint(i)}, t0, 0)
	}
	for i := range 1000 { // other clients have room
		if other := (codec.NASName{Client: "c", Name: fmt.Sprint(i)}); heardOf(r, other, t0, 0).Client != "c" || r.byKey[other] == nil {
			t.Fatalf("NAS %d of another client is not known", i)
		}
	}
	for i := range 1000 {
		key := codec.NASName{Client: "c", Name: fmt.Sprint(i)}
		delete(r.byKey, key)
		r.shares.Add("c", -1)
	}
	r.changed = r.changed[:maxOfClient]
	one := codec.NASName{Client: "a", Name: "one more"}
	ev := heardOf(r, one, t0.Add(time.Minute), -time.Hour)
	if !ev.At.Equal(t0.Add(time.Minute)) || ev.Client != "a" {
		t.Errorf("placed at %v of %v", ev.At, ev.SessionID)
	}
	r.Refuse(one.Session(), subscriber.Stale)
	r.Restart(one.Session(), t0)
	if r.Unite(one, codec.NASName{Client: "a", Name: "0"}) || r.Original(one) != one || len(r.byKey) != maxOfClient {
		t.Errorf("%d NASes are known", len(r.byKey))
	}
	later := t0.Add(Life + time.Hour)
	r.forget(later)
	if len(r.byKey) != maxOfClient {
		t.Error("what is not written yet was forgotten")
	}
	r.news(maxOfClient)
	heardOf(r, codec.NASName{Client: "a", Name: "7"}, later, 0)
	r.news(1)
	r.forget(later)
	heardOf(r, one, later, 0)
	if got := len(r.byKey); got != 2 || r.byKey[one] == nil {
		t.Errorf("%d NASes are known: %v", got, maps.Keys(r.byKey))
	}
}

// TestNASAddresses: a name counts as used by several NASes once an earlier address is seen
// again, until a day after the last time.
func TestNASAddresses(t *testing.T) {
	type step struct {
		address        string // last octet; "" for none
		delay, after   time.Duration
		conflict, sign bool
	}
	many := func() (steps []step) {
		for _, a := range []string{"1", "2", "3", "4", "5", "6", "7", "8", "9"} {
			steps = append(steps, step{address: a})
		}
		return steps
	}
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"one", []step{{address: "1"}, {address: "1"}, {}, {address: "1"}}},
		{"renumbered", []step{{address: "1"}, {address: "2"}, {address: "2"}, {address: "3"}}},
		{"two", []step{{address: "1"}, {address: "2"}, {address: "1", conflict: true, sign: true}, {address: "1", conflict: true}, {address: "2", conflict: true, sign: true}}},
		{"three", []step{{address: "1"}, {address: "2"}, {address: "3"}, {address: "1", conflict: true, sign: true}}},
		{"renumbered, and a spool is worked off", []step{{address: "1"}, {address: "2"}, {address: "1", delay: time.Hour}, {address: "2"}}},
		{"two, one of them late", []step{{address: "1"}, {address: "2"}, {address: "1", delay: time.Minute, conflict: true, sign: true}}},
		{"told apart since", []step{
			{address: "1"}, {address: "2"}, {address: "1", conflict: true, sign: true},
			{address: "1", after: conflictTime - 1, conflict: true}, {address: "1", after: conflictTime},
		}},
		{"without address", []step{{address: "1"}, {address: "2"}, {address: "1", conflict: true, sign: true}, {}}},
		{"more than are remembered", append(many(), step{address: "1"}, step{address: "3", conflict: true, sign: true})},
	} {
		t.Run(c.name, func(t *testing.T) {
			var n Addresses
			for i, s := range c.steps {
				ev := prompt("nas1", 0, 0)
				if ev.Delay = s.delay; s.address != "" {
					ev.NASAddress = netip.MustParseAddr("192.0.2." + s.address)
				}
				conflict, sign := n.Note(&ev, func() time.Time { return t0.Add(s.after) })
				if conflict != s.conflict || sign != s.sign {
					t.Errorf("step %d: conflict %v, sign %v", i, conflict, sign)
				}
			}
		})
	}
}

// TestNASAddressesAreBounded: a client that invents names gets a bounded number of entries.
func TestNASAddressesAreBounded(t *testing.T) {
	var n Addresses
	ev := prompt("nas1", 0, 0)
	ev.NASAddress = netip.MustParseAddr("192.0.2.1")
	for i := range maxOfClient + 10 {
		ev.NAS = strconv.Itoa(i)
		n.Note(&ev, func() time.Time { return t0 })
	}
	if got := len(n.names); got != maxOfClient {
		t.Errorf("%d names", got)
	}
	ev.Client = "another"
	n.Note(&ev, func() time.Time { return t0 })
	if n.names[codec.NASOf(ev.SessionID)] == nil {
		t.Error("another client finds no room")
	}
}
