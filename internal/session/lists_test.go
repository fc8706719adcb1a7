package session

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lifecycle"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb"
	"github.com/sessiond/sessiond/internal/testenv"
)

// listWorld is a Manager with three groups whose inside prefixes interleave,
// and a model of the online subscribers.
type listWorld struct {
	*life
	t      testing.TB
	r      *rand.Rand
	clock  time.Time
	online map[subscriber.Key]subscriber.Record
}

var listGroups = []string{"a", "b", "c"}

func newListWorld(t testing.TB, seed uint64) *listWorld {
	var configs []lsn.GroupConfig
	for i, name := range listGroups {
		c := lsn.GroupConfig{
			Name: name, Outside: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, byte(i), 0}), 27)},
			FirstPort: 1024, LastPort: 65535, BlockSize: 2048, Hold: time.Minute, Grace: time.Minute, GraceCauses: []uint32{2},
		}
		for n := i; n < 64; n += len(listGroups) {
			c.Inside = append(c.Inside, netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64, byte(n / 4), byte(n % 4 * 64)}), 26))
		}
		configs = append(configs, c)
	}
	w := &listWorld{
		life: newLifeOf(t, configs...), t: t, r: rand.New(rand.NewPCG(seed, 0)),
		clock: time.UnixMilli(1_700_000_000_000), online: map[subscriber.Key]subscriber.Record{},
	}
	w.now = func() time.Time { return w.clock }
	w.settled = true
	return w
}

// key draws an address of a group, occasionally one that is not IPv4.
func (w *listWorld) key(group string, spread int) subscriber.Key {
	if w.r.IntN(50) == 0 {
		return subscriber.Key{Group: group, Inside: netip.AddrFrom16([16]byte{0x20, 1, 15: group[0]<<4 | byte(w.r.IntN(4))})}
	}
	p := w.groups[group].Config.Inside
	o := p[w.r.IntN(min(len(p), spread))].Addr().As4()
	o[3] += byte(w.r.IntN(64))
	return subscriber.Key{Group: group, Inside: netip.AddrFrom4(o)}
}

func (w *listWorld) draw(words ...string) string { return words[w.r.IntN(len(words))] }

// record draws a record; many share few names.
func (w *listWorld) record(key subscriber.Key) subscriber.Record {
	r := subscriber.Record{
		Key: key, UserName: w.draw("", "guest", "guest", fmt.Sprint("u", w.r.IntN(100))), CallingStationID: w.draw("02:00:00:00:00:01", "0200.0000.0001", "02-00-00-00-00-02"),
		SessionID: subscriber.SessionID{
			Client: w.draw("", "c1", "c2"), NAS: w.draw("", "n1", "n1", "n2", fmt.Sprint("n", w.r.IntN(40))), AcctSessionID: fmt.Sprint(w.r.IntN(1000)),
		},
	}
	if w.r.IntN(6) == 0 {
		r.RemovalHeld = []subscriber.Reason{subscriber.ReasonExpired, subscriber.ReasonRemovedInDatabase}[w.r.IntN(2)]
	}
	return r
}

// tell applies changes of one group.
func (w *listWorld) tell(group string, changes ...subscriber.Change) {
	w.entry++
	id := fmt.Sprintf("%d-0", 1_700_000_000_000+w.entry)
	for i := range changes {
		c := &changes[i]
		c.ID = subscriber.ParseVersion(id)
		r := c.Record.Record()
		r.Version = id
		c.Record = r.Pack()
		if c.Kind == subscriber.Deleted {
			delete(w.online, r.Key)
		} else {
			w.online[r.Key] = r
		}
	}
	w.Manager.follower.apply(w.groups[group], changes, id)
}

// change draws a change of an address.
func (w *listWorld) change(key subscriber.Key) subscriber.Change {
	before, there := w.online[key]
	after := w.record(key)
	c := subscriber.Change{Kind: subscriber.Created}
	switch n := w.r.IntN(8); {
	case there && n < 3:
		c.Kind, c.Reason, c.Cause, after = subscriber.Deleted, subscriber.ReasonStop, uint32(w.r.IntN(4)), before
	case there && n < 6: // changed attributes of the same session
		c.Kind, after.SessionID = subscriber.Updated, before.SessionID
	}
	c.Record = after.Pack()
	return c
}

// step applies some changes, and advances the time.
func (w *listWorld) step(spread int) {
	group := listGroups[w.r.IntN(len(listGroups))]
	var changes []subscriber.Change
	taken := map[netip.Addr]bool{}
	for range w.r.IntN(40) {
		if key := w.key(group, spread); !taken[key.Inside] {
			taken[key.Inside] = true
			changes = append(changes, w.change(key))
		}
	}
	w.tell(group, changes...)
	w.settle(w.t)
	switch w.r.IntN(20) {
	case 0:
		w.clock = w.clock.Add(40 * time.Second)
		w.timers.tick()
		w.settle(w.t)
	case 1:
		w.Manager.settings.inForce.Removal = []inspect.RemovalMode{inspect.RemovalOn, inspect.RemovalOff, inspect.RemovalObserve}[w.r.IntN(3)]
		w.Manager.life.SetRemoval(w.Manager.settings.inForce.Removal)
	}
}

func (w *listWorld) prefix() netip.Prefix {
	switch w.r.IntN(5) {
	case 0:
		a := w.key(listGroups[w.r.IntN(3)], 64).Inside
		return netip.PrefixFrom(a, a.BitLen())
	case 1:
		p, err := netip.AddrFrom4([4]byte{100, 64, byte(w.r.IntN(16)), byte(w.r.IntN(256))}).Prefix(20 + w.r.IntN(12))
		if err != nil {
			w.t.Fatal(err)
		}
		return p
	}
	return netip.Prefix{}
}

func (w *listWorld) subscriberFilter() inspect.SubscriberFilter {
	f := inspect.SubscriberFilter{
		Group: w.draw("", "", "a", "c", "none"), NAS: w.draw("", "", "n1", "n7", "none"),
		UserName: w.draw("", "", "", "guest", "u7", "none"), Inside: w.prefix(),
		UserPrefix: w.draw("", "", "u", "u1", "gue", "none"), AcctSessionID: w.draw("", "", "", "", "17"),
		Station: inspect.NewStation(w.draw("", "", "", "02-00-00-00-00-01")),
	}
	if w.r.IntN(3) == 0 {
		f.State = inspect.SubscriberState(w.r.IntN(6))
	}
	if w.r.IntN(4) == 0 {
		f.Outside = netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, byte(w.r.IntN(3)), byte(w.r.IntN(32))}), 29+w.r.IntN(4)).Masked()
		if f.Outside.IsSingleIP() && w.r.IntN(2) == 0 {
			f.Port = nat.Port(1024 + w.r.IntN(60_000))
		}
	}
	return f
}

// matchesView reports whether the subscriber at an address passes the part of a filter that
// concerns NAT, by its view.
func (w *listWorld) matchesView(f *inspect.SubscriberFilter, inside netip.Addr) bool {
	view := w.Manager.reports.viewLocked(w.Manager.life.Slot(inside))
	return f.MatchView(&view)
}

// byName lists all matches in the order of User-Names, in small pages.
func (w *listWorld) byName(f inspect.SubscriberFilter, limit int) (names []inspect.NameKey) {
	w.t.Helper()
	for after := (inspect.NameKey{}); ; {
		page, next, err := w.SubscribersByName(context.Background(), f, after, limit)
		if err != nil || len(page) > limit {
			w.t.Fatal(len(page), err)
		}
		for i := range page {
			names = append(names, inspect.NameKey{UserName: page[i].UserName, Inside: page[i].Inside})
		}
		if next == (inspect.NameKey{}) {
			return names
		}
		after = next
	}
}

// checkNames checks the list by User-Names, and the totals.
func (w *listWorld) checkNames(f inspect.SubscriberFilter, matching []subscriber.Key) {
	w.t.Helper()
	if n, counted := w.SubscriberTotal(context.Background(), f); counted && n != len(matching) {
		w.t.Fatalf("%+v: the total is %d, want %d", f, n, len(matching))
	}
	var want []inspect.NameKey
	for _, key := range matching {
		if r := w.online[key]; r.UserName != "" && r.Inside.Is4() {
			want = append(want, inspect.NameKey{UserName: r.UserName, Inside: r.Inside})
		}
	}
	slices.SortFunc(want, func(a, b inspect.NameKey) int {
		return cmp.Or(cmp.Compare(a.UserName, b.UserName), a.Inside.Compare(b.Inside))
	})
	if got := w.byName(f, 1+w.r.IntN(50)); !slices.Equal(got, want) {
		w.t.Fatalf("%+v by name:\n%v, want\n%v", f, got, want)
	}
}

// subscribers lists all matches in small pages, and calls between after each
// page.
func (w *listWorld) subscribers(f inspect.SubscriberFilter, limit int, between func()) []subscriber.Key {
	w.t.Helper()
	var keys []subscriber.Key
	for after := (subscriber.Key{}); ; {
		page, next, err := w.Subscribers(context.Background(), f, after, limit)
		if err != nil || len(page) > limit {
			w.t.Fatal(len(page), err)
		}
		for i := range page {
			if !f.Match(&page[i].Record) || !f.MatchView(&page[i]) {
				w.t.Fatalf("%+v does not match %+v", page[i].Record, f)
			}
			keys = append(keys, page[i].Key)
		}
		if next == (subscriber.Key{}) {
			return keys
		}
		if inspect.CompareKeys(next, after) <= 0 {
			w.t.Fatalf("behind %v it goes on behind %v", after, next)
		}
		after = next
		between()
	}
}

func (w *listWorld) wantSubscribers(f inspect.SubscriberFilter) []subscriber.Key {
	var keys []subscriber.Key
	for key, r := range w.online {
		if f.Match(&r) && w.matchesView(&f, key.Inside) {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, inspect.CompareKeys)
	return keys
}

func (w *listWorld) checkSubscribers() {
	w.t.Helper()
	f := w.subscriberFilter()
	want := w.wantSubscribers(f)
	if got := w.subscribers(f, 1+w.r.IntN(50), func() {}); !slices.Equal(got, want) {
		w.t.Fatalf("%+v:\n%v, want\n%v", f, got, want)
	}
	if got, err := w.matching(f); err != nil || !slices.Equal(got, want) {
		w.t.Fatalf("%+v: %v, would delete\n%v, want\n%v", f, err, got, want)
	}
	w.checkNames(f, want)
	counted := inspect.SubscriberFilter{Group: w.draw("", "", "a", "none"), NAS: w.draw("", "n1", "n7")}
	if counted.NAS == "" {
		counted.State = inspect.SubscriberState(w.r.IntN(6))
	}
	w.checkNames(counted, w.wantSubscribers(counted))
	if _, ok := w.SubscriberTotal(context.Background(), inspect.SubscriberFilter{Group: "a", NAS: "n1"}); !ok {
		w.t.Fatal("a total by group and NAS is not counted")
	}
}

func (w *listWorld) checkBindings() {
	w.t.Helper()
	f := inspect.BindingFilter{
		Group: w.draw("", "", "a", "none"), Inside: w.prefix(),
		State: []nat.State{0, 0, nat.Active, nat.Draining, nat.Cut, nat.Held}[w.r.IntN(6)],
	}
	switch w.r.IntN(6) {
	case 0:
		f.UserName = w.draw("guest", "u7")
	case 1:
		f.UserPrefix = w.draw("u", "gu")
	case 2:
		f.AcctSessionID, f.Port = w.draw("", "17"), nat.Port(1024+w.r.IntN(60_000))
	}
	if w.r.IntN(2) == 0 {
		p, err := netip.AddrFrom4([4]byte{198, 18, byte(w.r.IntN(4)), byte(w.r.IntN(64))}).Prefix(16 + w.r.IntN(17))
		if err != nil {
			w.t.Fatal(err)
		}
		f.Outside = p
	}
	var want, got []inspect.BindingKey
	for _, group := range listGroups {
		w.Manager.life.Engine().Bindings(group, func(b nat.Binding) bool {
			if f.Match(&b) {
				want = append(want, inspect.KeyOf(&b))
			}
			return true
		})
	}
	slices.SortFunc(want, inspect.BindingKey.Compare)
	if n, counted := w.BindingTotal(context.Background(), f); counted && n != len(want) {
		w.t.Fatalf("%+v: the total is %d, want %d", f, n, len(want))
	}
	for after, limit := (inspect.BindingKey{}), 1+w.r.IntN(50); ; {
		page, next, err := w.Bindings(context.Background(), f, after, limit)
		if err != nil || len(page) > limit {
			w.t.Fatal(len(page), err)
		}
		for i := range page {
			got = append(got, inspect.KeyOf(&page[i].Binding))
		}
		if next == (inspect.BindingKey{}) {
			break
		}
		after = next
	}
	if !slices.Equal(got, want) {
		w.t.Fatalf("%+v:\n%v, want\n%v", f, got, want)
	}
}

// wantRemovals computes the expected removals from all slots.
func (w *listWorld) wantRemovals(f inspect.RemovalFilter) []inspect.RemovalKey {
	found := map[inspect.RemovalKey]bool{}
	add := func(r inspect.Removal) {
		if f.Match(&r) {
			found[r.Key()] = true
		}
	}
	for _, r := range w.online {
		if r.RemovalHeld != subscriber.ReasonNone {
			add(inspect.Removal{Kind: inspect.RemovalHeld, Record: r, Reason: r.RemovalHeld, Since: subscriber.VersionTime(r.Version)})
		}
	}
	for _, s := range w.Manager.life.Slots().All() {
		if !s.Online() && s.Phase() == lifecycle.Draining && s.InGrace(w.now()) {
			add(s.Removal(inspect.RemovalGrace))
		}
	}
	for _, r := range w.Manager.reports.observed.ring {
		add(r)
	}
	return slices.SortedFunc(maps.Keys(found), inspect.RemovalKey.Compare)
}

func (w *listWorld) checkRemovals() {
	w.t.Helper()
	f := inspect.RemovalFilter{
		Group: w.draw("", "", "a"), NAS: w.draw("", "", "n1"), Inside: w.prefix(),
		Reason: []subscriber.Reason{0, 0, subscriber.ReasonExpired, subscriber.ReasonStop}[w.r.IntN(4)],
		Kind:   inspect.RemovalKind(w.r.IntN(4)),
	}
	want := w.wantRemovals(f)
	var got []inspect.RemovalKey
	for after, limit := (inspect.RemovalKey{}), 1+w.r.IntN(50); ; {
		page, next, err := w.Removals(context.Background(), f, after, limit)
		if err != nil || len(page) > limit {
			w.t.Fatal(len(page), err)
		}
		for i := range page {
			got = append(got, page[i].Key())
		}
		if next == (inspect.RemovalKey{}) {
			break
		}
		after = next
	}
	if !slices.Equal(got, want) {
		w.t.Fatalf("%+v:\n%v, want\n%v", f, got, want)
	}
	var held []subscriber.Key
	f.Kind = inspect.RemovalHeld
	for _, k := range w.wantRemovals(f) {
		held = append(held, k.Key)
	}
	if keys, err := w.heldKeys(f); err != nil || !slices.Equal(keys, held) {
		w.t.Fatalf("%+v: %v, would be decided\n%v, want\n%v", f, err, keys, held)
	}
}

func (w *listWorld) checkNASes() {
	w.t.Helper()
	want := map[inspect.NASKey]int{}
	for _, r := range w.online {
		if r.Client != "" {
			want[inspect.NASKey{Client: r.Client, Name: r.NAS}]++
		}
	}
	if got, err := w.onlineByNAS(); err != nil || !maps.Equal(got, want) {
		w.t.Fatalf("%v, %v, want %v", got, err, want)
	}
}

// TestListsRandomWalk: after random histories every list, with every filter,
// equals a look at everything, in the same order.
func TestListsRandomWalk(t *testing.T) {
	for seed := range uint64(testenv.Walks(3)) {
		w := newListWorld(t, seed)
		for range 120 {
			w.step([]int{1, 4, 64}[seed%3])
			for range 3 {
				w.checkSubscribers()
				w.checkBindings()
				w.checkRemovals()
			}
			w.checkNASes()
		}
		for _, group := range listGroups { // until none is online
			var ends []subscriber.Change
			for key, r := range w.online {
				if key.Group == group {
					ends = append(ends, subscriber.Change{Kind: subscriber.Deleted, End: subscriber.End{Reason: subscriber.ReasonStop}, Record: r.Pack()})
				}
			}
			w.tell(group, ends...)
			w.settle(t)
		}
		w.checkSubscribers()
		if groups, nases, clients := w.Manager.life.Online().Groups("", ""), w.Manager.life.Online().ByNAS(), w.Manager.reports.clients.counts; len(groups)+len(nases)+len(clients) > 0 {
			t.Fatalf("of nobody, the groups %v, the NASes %v and the clients %v are left", groups, nases, clients)
		}
	}
}

// TestListsDuringChanges: while half of the subscribers come and go, between
// pages and concurrently, the other half are listed once each and in order.
func TestListsDuringChanges(t *testing.T) {
	w := newListWorld(t, 1)
	stays := func(key subscriber.Key) bool { return key.Inside.As4()[3]%2 == 0 }
	for _, group := range listGroups {
		var starts []subscriber.Change
		for _, p := range w.groups[group].Config.Inside {
			for a := p.Addr(); p.Contains(a); a = a.Next() {
				r := w.record(subscriber.Key{Group: group, Inside: a})
				starts = append(starts, subscriber.Change{Kind: subscriber.Created, Record: r.Pack()})
			}
		}
		w.tell(group, starts...)
		w.settle(t)
	}
	standing := maps.Clone(w.online)
	maps.DeleteFunc(standing, func(key subscriber.Key, _ subscriber.Record) bool { return !stays(key) })

	var stopped atomic.Bool
	var beside sync.WaitGroup
	beside.Go(func() { // only this goroutine uses the model and the executors
		for !stopped.Load() {
			group := listGroups[w.r.IntN(len(listGroups))]
			key := w.key(group, 64)
			if key.Inside.Is4() && !stays(key) {
				w.tell(group, w.change(key))
				w.settle(t)
			}
		}
	})
	defer beside.Wait()
	defer stopped.Store(true)
	for round := range 36 {
		f := []inspect.SubscriberFilter{
			{}, {UserName: "guest"}, {NAS: "n1"}, {Group: "b"}, {NAS: "n1", UserName: "guest"}, {Inside: netip.MustParsePrefix("100.64.2.0/23")},
		}[round%6]
		got := w.subscribers(f, []int{7, 1000, 10_000}[round%3], func() {})
		if !slices.IsSortedFunc(got, inspect.CompareKeys) || len(slices.Compact(slices.Clone(got))) != len(got) {
			t.Fatalf("%+v: out of order: %v", f, got)
		}
		for key, r := range standing {
			if _, told := slices.BinarySearchFunc(got, key, inspect.CompareKeys); told != f.Match(&r) {
				t.Fatalf("%+v: %v was told of: %t", f, key, told)
			}
		}
	}
}

// TestListsAreBounded: if many items have to be examined for few matches, a
// call returns a short page and the key to continue after.
func TestListsAreBounded(t *testing.T) {
	l := newLifeOf(t, lsn.GroupConfig{
		Name: "default", Inside: testGroup.Inside, Outside: []netip.Prefix{netip.MustParsePrefix("198.18.0.0/23")},
		FirstPort: 1024, LastPort: 65535, BlockSize: 256, Hold: time.Minute,
	})
	l.settled = true
	const n = 2*looksPerCall + 10
	for i := range n {
		r := subscriber.Record{
			Key: l.key(i), UserName: "guest", SessionID: subscriber.SessionID{Client: "c", NAS: "many"}, RemovalHeld: subscriber.ReasonExpired,
		}
		if i == n-1 {
			r.NAS = "few"
			l.Manager.reports.observed.add(inspect.Removal{Kind: inspect.RemovalObserved, Record: r, Reason: subscriber.ReasonStop})
		}
		packed := r.Pack()
		l.Manager.life.Stand(&packed, l.now())
		if i%10_000 == 0 || i == n-1 {
			l.settle(t)
		}
	}
	const beyond = 1 << 17 // more draining slots than fewBindings
	l.round(t, beyond, fewBindings+1, l.start)
	l.Manager.life.SetRemoval(inspect.RemovalOff)
	l.round(t, beyond, fewBindings+1, l.stop)
	if _, err := l.Manager.life.Engine().Drain("default", l.key(n-1).Inside, l.now()); err != nil {
		t.Fatal(err)
	}
	subscribers := pageSizes(t, func(after subscriber.Key) ([]inspect.Subscriber, subscriber.Key, error) {
		return l.Subscribers(t.Context(), inspect.SubscriberFilter{UserName: "guest", NAS: "few"}, after, 10)
	})
	removals := pageSizes(t, func(after inspect.RemovalKey) ([]inspect.Removal, inspect.RemovalKey, error) {
		return l.Removals(t.Context(), inspect.RemovalFilter{NAS: "few"}, after, 10)
	})
	bindings := pageSizes(t, func(after inspect.BindingKey) ([]inspect.Binding, inspect.BindingKey, error) {
		return l.Bindings(t.Context(), inspect.BindingFilter{State: nat.Draining, Inside: netip.MustParsePrefix("100.64.0.0/15")}, after, 10)
	})
	if !slices.Equal(subscribers, []int{0, 0, 1}) || !slices.Equal(removals, []int{0, 0, 2}) || slices.Index(bindings, 1) != len(bindings)-1 || len(bindings) < 2 {
		t.Errorf("pages of %v subscribers, %v removals, %v bindings", subscribers, removals, bindings)
	}
}

// pageSizes returns the number of items on each page of a list.
func pageSizes[T any, K comparable](t *testing.T, list func(after K) ([]T, K, error)) (sizes []int) {
	t.Helper()
	var after, none K
	for {
		page, next, err := list(after)
		if err != nil {
			t.Fatal(err)
		}
		if sizes = append(sizes, len(page)); next == none {
			return sizes
		}
		after = next
	}
}

func TestSmallest(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		s := topN[int]{limit: r.IntN(5), compare: cmp.Compare[int]}
		var all []int
		for range r.IntN(20) {
			x := r.IntN(15)
			s.add(x)
			all = append(all, x)
		}
		slices.Sort(all)
		want := slices.Compact(all)
		if want = want[:min(len(want), s.limit)]; !slices.Equal(s.kept, want) {
			t.Fatalf("the %d smallest of %v: %v", s.limit, all, s.kept)
		}
	}
}

// TestTotalOfWaitingBindings: bindings that are allocated, and not programmed yet, are neither in a list
// nor in its total.
func TestTotalOfWaitingBindings(t *testing.T) {
	w := newWorld(t, testGroup)
	w.halt()
	store := &lateStore{nil, make(chan struct{})}
	w.store = func(db *subscriberdb.DB) Store { store.Store = db; return store }
	w.boot()
	w.send(subscriber.EventStart, alice, "a", "1")
	w.until("her block to be allocated", func() bool {
		w.mu.RLock()
		defer w.mu.RUnlock()
		s := w.life.Slot(alice)
		return s != nil && s.Awaited()
	})
	total := func() int { n, _ := w.BindingTotal(t.Context(), inspect.BindingFilter{}); return n }
	if n, listed := total(), len(w.bindings(alice)); n != 0 || listed != 0 {
		t.Errorf("%d bindings are counted, %d listed", n, listed)
	}
	close(store.gate)
	w.awaitState(alice, nat.Active)
	if n := total(); n != 1 {
		t.Errorf("%d bindings are counted", n)
	}
}
