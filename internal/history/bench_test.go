package history

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/testenv"
)

// provider makes the log of an ISP: each session is an allocation and a release, of a block of
// 1008 ports, 64 to an address. Users come back, and have one Calling-Station-Id each.
type provider struct {
	rnd     *rand.Rand
	at      time.Time
	step    time.Duration
	online  []nat.Event
	free    []nat.Block
	entries int
}

// newProvider returns an ISP with so many subscribers online at once, and so many records a
// day.
func newProvider(online, perDay int) *provider {
	p := &provider{
		rnd: rand.New(rand.NewPCG(7, 7)), at: time.Date(2026, 3, 1, 0, 0, 2, 0, time.UTC),
		step: 23 * time.Hour / time.Duration(perDay),
	}
	blocks := online + online/4 + 64
	for i := range blocks {
		n := uint32(198<<24|18<<16) + uint32(i/64)
		first := nat.Port(1024 + 1008*(i%64))
		p.free = append(p.free, nat.Block{
			Outside: netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}), First: first, Last: first + 1007,
		})
	}
	p.rnd.Shuffle(len(p.free), func(i, k int) { p.free[i], p.free[k] = p.free[k], p.free[i] })
	for range online {
		p.online = append(p.online, p.allocate())
	}
	return p
}

func (p *provider) allocate() nat.Event {
	i := p.rnd.IntN(len(p.free))
	b := p.free[i]
	p.free[i] = p.free[len(p.free)-1]
	p.free = p.free[:len(p.free)-1]
	user := p.rnd.IntN(4 * max(cap(p.online), 1000))
	mac := uint64(user) * 0x9e3779b97f4a7c15
	nas := user % 20
	names := [...]string{"user%07d@isp.net", "%07d@dsl.example.net", "customer-%07d"}
	session := fmt.Sprintf("%08x%08x", p.rnd.Uint32(), p.entries)
	if user%2 == 0 {
		session = fmt.Sprintf("%016x%016x", p.rnd.Uint64(), p.rnd.Uint64())
	}
	return nat.Event{
		Kind: nat.Allocated, At: p.at, Group: "default", Block: b,
		Holder: nat.Identity{
			Inside:   netip.AddrFrom4([4]byte{100, 64 + byte(p.rnd.IntN(64)), byte(p.rnd.IntN(256)), byte(p.rnd.IntN(256))}),
			UserName: fmt.Sprintf(names[user%len(names)], user),
			Client:   fmt.Sprintf("bng%d", nas), NAS: fmt.Sprintf("bng%02d.pop.isp.net", nas), NASAddress: netip.AddrFrom4([4]byte{192, 0, 2, byte(nas)}),
			AcctSessionID:    session,
			CallingStationID: fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", byte(mac%8), byte(mac>>8%4), byte(mac>>16), byte(mac>>24), byte(mac>>32), byte(mac>>40)),
		},
	}
}

// batch returns the next records of the log.
func (p *provider) batch(records int) Batch {
	b := Batch{Group: "default"}
	for range records {
		p.at = p.at.Add(p.step).Truncate(time.Microsecond)
		var e nat.Event
		if p.entries++; p.entries%2 == 0 || len(p.online) == 0 {
			e = p.allocate()
			p.online = append(p.online, e)
		} else {
			i := p.rnd.IntN(len(p.online))
			e = p.online[i]
			p.online[i] = p.online[len(p.online)-1]
			p.online = p.online[:len(p.online)-1]
			p.free = append(p.free, e.Block)
			e.Kind, e.Since, e.At = nat.Released, e.At, p.at
		}
		b.Entries = append(b.Entries, Entry{strconv.Itoa(p.entries) + "-1", []nat.Event{e}})
	}
	return b
}

// begin begins the history of the ISP.
func (p *provider) begin(b testing.TB, s *Store) {
	b.Helper()
	r := Restart{Group: "default", Position: "0-1", To: p.at}
	for _, e := range p.online {
		e.Kind, e.Since = nat.Interim, e.At
		r.Live = append(r.Live, e)
	}
	if err := s.Resume(r); err != nil {
		b.Fatal(err)
	}
}

func octetsOf(b testing.TB, folder, pattern string) (total int64) {
	b.Helper()
	list, err := filepath.Glob(filepath.Join(folder, "*", pattern))
	if err != nil {
		b.Fatal(err)
	}
	for _, path := range list {
		info, err := os.Stat(path)
		if err != nil {
			b.Fatal(err)
		}
		total += info.Size()
	}
	return total
}

// batchSize is the number of records that a reader in catch-up hands over at once.
const batchSize = 10_000

// BenchmarkAppend stores records in catch-up, each batch durably, and reports their rate, octets
// a record today and at rest, the time of a start that reads them, and the rate at which they
// become a day's file.
func BenchmarkAppend(b *testing.B) {
	for _, online := range []int{20_000, 200_000} {
		for _, sessions := range []int{1, 5} { // of a subscriber and day
			b.Run(fmt.Sprintf("online=%d/sessions=%d", online, sessions), func(b *testing.B) {
				for b.Loop() {
					b.StopTimer()
					appendDay(b, online, 2*sessions*online)
					b.StartTimer()
				}
			})
		}
	}
}

func appendDay(b *testing.B, online, records int) {
	s, err := Open(Options{Path: b.TempDir(), Key: testKey(b)})
	if err != nil {
		b.Fatal(err)
	}
	p := newProvider(online, records)
	p.begin(b, s)
	before := octetsOf(b, s.o.Path, "*"+journalExt)
	var spent time.Duration
	for n := 0; n < records; n += batchSize {
		batch := p.batch(min(batchSize, records-n))
		b.StartTimer()
		began := time.Now()
		if err := s.Append(batch); err != nil {
			b.Fatal(err)
		}
		spent += time.Since(began)
		b.StopTimer()
	}
	b.ReportMetric(float64(records)/spent.Seconds(), "records/s")
	b.ReportMetric(float64(octetsOf(b, s.o.Path, "*"+journalExt)-before)/float64(records), "today-B/record")
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	began := time.Now()
	if s, err = Open(s.o); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(time.Since(began).Seconds(), "open-s")
	p.at = p.at.Add(24 * time.Hour)
	if err := s.Append(p.batch(2)); err != nil {
		b.Fatal(err)
	}
	began = time.Now()
	if err := s.Maintain(p.at); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(records)/time.Since(began).Seconds(), "completed-records/s")
	b.ReportMetric(float64(octetsOf(b, s.o.Path, "*"+dayExt))/float64(records), "B/record")
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkLookup asks for random ports at random times, with everything in the page cache and
// with nothing there, in histories of two sizes. HISTORY_RECORDS says how many records the larger one
// has, HISTORY_PATH where to keep it for the next run.
func BenchmarkLookup(b *testing.B) {
	large := 4_000_000
	if text := os.Getenv("HISTORY_RECORDS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			b.Fatal(err)
		}
		large = n
	}
	for _, records := range []int{400_000, large} {
		b.Run(fmt.Sprintf("records=%d", records), func(b *testing.B) {
			path, key := filepath.Join(b.TempDir(), "history"), testKey(b)
			if keep := os.Getenv("HISTORY_PATH"); keep != "" {
				path = filepath.Join(keep, fmt.Sprint(records))
			}
			makeHistory(b, path, key, records)
			for _, way := range []string{"warm", "cold"} {
				b.Run(way, func(b *testing.B) { askHistory(b, path, key, way == "cold") })
			}
		})
	}
}

// makeHistory makes a history of at least 20 days, unless it is there. Its files of days are
// written without journals before them.
func makeHistory(b *testing.B, path string, key *Key, records int) {
	b.Helper()
	if _, err := os.Stat(path); err == nil {
		return
	}
	began := time.Now()
	s, err := Open(Options{Path: path, Key: key})
	if err != nil {
		b.Fatal(err)
	}
	l := s.newLog("default")
	if err := l.o.files.mkdir(l.dir); err != nil {
		b.Fatal(err)
	}
	perDay := min(records/20, 1_250_000)
	p := newProvider(perDay/4, perDay)
	day := &dayContent{}
	for i := range p.online {
		day.tell(&p.online[i], nil)
	}
	written := make(chan error, 1)
	written <- nil
	number := uint64(1)
	for ; int(number)*perDay < records; number++ {
		day.dayNote = dayNote{group: "default", number: number, from: microsOf(p.at)}
		open := map[blockKey]int{}
		for i := range day.list {
			open[day.list[i].blockKey] = i
		}
		for n := 0; n < perDay; n += batchSize {
			for _, e := range p.batch(batchSize).Entries {
				day.tell(&e.Events[0], open)
			}
		}
		day.to = microsOf(p.at)
		full, next := day, &dayContent{}
		for _, i := range slices.Sorted(maps.Values(open)) {
			next.add(full.list[i], full.holders[full.list[i].ref])
		}
		day = next
		if err := <-written; err != nil {
			b.Fatal(err)
		}
		go func() {
			slices.SortFunc(full.list, func(a, b span) int { return a.compare(&b) })
			written <- writeDay(l.o.files, l.path(full.from, full.number, dayExt), full, key.sign)
		}()
	}
	if err := <-written; err != nil {
		b.Fatal(err)
	}
	l.position, l.through, l.latest = strconv.Itoa(p.entries)+"-1", microsOf(p.at), microsOf(p.at)
	j, err := l.createJournal(journalEntry{kind: entryBegin, at: l.through, number: number, text: "default"}, nil)
	if err := errors.Join(err, j.file.Close(), s.Close()); err != nil {
		b.Fatal(err)
	}
	if s, err = Open(s.o); err != nil {
		b.Fatal(err)
	}
	for n := 0; n < perDay; n += batchSize {
		if err := s.Append(p.batch(batchSize)); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	b.Logf("%d records made in %s; %.1f octets a record at rest", records, time.Since(began).Round(time.Second),
		float64(octetsOf(b, path, "*"+dayExt))/float64(records-perDay))
}

// tell adds an event to a day of which the open spans are known by their blocks.
func (c *dayContent) tell(e *nat.Event, open map[blockKey]int) {
	k, at := keyOf(e.Block), microsOf(e.At)
	if e.Kind == nat.Released {
		c.list[open[k]].released, c.list[open[k]].vacant = at, at
		delete(open, k)
		return
	}
	if open != nil {
		open[k] = len(c.list)
	}
	c.add(span{blockKey: k, allocated: at, released: never, vacant: never}, holderData{identity: appendIdentity(nil, &e.Holder)})
}

func (c *dayContent) add(s span, h holderData) {
	s.ref = uint64(len(c.holders))
	c.list, c.holders = append(c.list, s), append(c.holders, h)
}

func askHistory(b *testing.B, path string, key *Key, cold bool) {
	began := time.Now()
	s, err := Open(Options{Path: path, Key: key})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(time.Since(began).Seconds(), "open-s")
	defer s.Close()
	p, _ := s.Progress("default")
	rnd := rand.New(rand.NewPCG(1, 1))
	addresses := addressesOf(b, s)
	ask := func() Answer {
		at := p.First.Add(time.Duration(rnd.Int64N(int64(p.Through.Sub(p.First)))))
		a, err := s.LookupOutside(Question{Outside: addresses[rnd.IntN(len(addresses))], Port: nat.Port(1024 + rnd.IntN(64*1008)), At: at})
		if err != nil || a.State == Unknown {
			b.Fatal(a, err)
		}
		return a
	}
	if cold {
		testenv.Require(b, testenv.Root)
	} else {
		for range 2000 {
			ask()
		}
	}
	runtime.LockOSThread() // for its own CPU time
	defer runtime.UnlockOSThread()
	var times, cpus []time.Duration
	held := 0
	for b.Loop() {
		if cold && len(times)%20 == 0 {
			b.StopTimer()
			dropCache(b)
			b.StartTimer()
		}
		began, cpu := time.Now(), threadTime(b)
		if ask().State == Held {
			held++
		}
		times, cpus = append(times, time.Since(began)), append(cpus, threadTime(b)-cpu)
	}
	for unit, list := range map[string][]time.Duration{"-ms": times, "-cpu-ms": cpus} {
		slices.Sort(list)
		b.ReportMetric(float64(list[len(list)*99/100].Microseconds())/1000, "p99"+unit)
		b.ReportMetric(float64(list[len(list)/2].Microseconds())/1000, "p50"+unit)
	}
	b.ReportMetric(100*float64(held)/float64(len(times)), "%held")
}

// threadTime returns the CPU time of the thread, without that of waiting for a processor.
func threadTime(b *testing.B) time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		b.Fatal(err)
	}
	return time.Duration(t.Nano())
}

// addressesOf returns the outside addresses of a store.
func addressesOf(b *testing.B, s *Store) (list []netip.Addr) {
	b.Helper()
	l := s.log("default")
	err := l.segments[0].day.with(func(r *dayReader) error {
		all, err := r.all()
		for i := range all.list {
			if a := all.list[i].block().Outside; len(list) == 0 || list[len(list)-1] != a {
				list = append(list, a)
			}
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return list
}

// dropCache empties the page cache of the machine.
func dropCache(b *testing.B) {
	b.Helper()
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("1\n"), 0); err != nil {
		b.Skip("the page cache of this machine cannot be dropped: ", err)
	}
}

// BenchmarkRemoveDay removes days' files beside lookups and appends, and reports the longest
// of these.
func BenchmarkRemoveDay(b *testing.B) {
	for _, records := range []int{400_000, 4_000_000} {
		b.Run(fmt.Sprintf("records=%d", records), func(b *testing.B) {
			var lookup, added time.Duration
			for b.Loop() {
				b.StopTimer()
				path := filepath.Join(b.TempDir(), "history")
				makeHistory(b, path, testKey(b), records)
				s, err := Open(Options{Path: path, Key: testKey(b)})
				if err != nil {
					b.Fatal(err)
				}
				l, addresses := s.log("default"), addressesOf(b, s)
				rnd := rand.New(rand.NewPCG(2, 2))
				entry, through := 1<<40, l.through.time()
				longestLookup := beside(func() error {
					_, err := s.LookupOutside(Question{Outside: addresses[rnd.IntN(len(addresses))], Port: 5000, At: through})
					return err
				})
				longestAppend := beside(func() error {
					entry++
					return s.Append(Batch{Group: "default", Entries: []Entry{{strconv.Itoa(entry) + "-1", nil}}})
				})
				b.StartTimer()
				for range 10 {
					if err := l.removeOldest(); err != nil {
						b.Fatal(err)
					}
				}
				b.StopTimer()
				for longest, stop := range map[*time.Duration]func() (time.Duration, error){&lookup: longestLookup, &added: longestAppend} {
					t, err := stop()
					if err != nil {
						b.Fatal(err)
					}
					*longest = max(*longest, t)
				}
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			b.ReportMetric(float64(lookup.Microseconds())/1000, "lookup-ms")
			b.ReportMetric(float64(added.Microseconds())/1000, "append-ms")
		})
	}
}

// beside calls use again and again until stop, which returns the longest time it took.
func beside(use func() error) (stop func() (time.Duration, error)) {
	ended := make(chan struct{})
	var longest time.Duration
	var group errgroup.Group
	group.Go(func() error {
		for {
			select {
			case <-ended:
				return nil
			default:
			}
			began := time.Now()
			if err := use(); err != nil {
				return err
			}
			longest = max(longest, time.Since(began))
		}
	})
	return func() (time.Duration, error) {
		close(ended)
		err := group.Wait()
		return longest, err
	}
}
