package history

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

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

// BenchmarkAppend stores records in catch-up, each batch durably, and reports their rate while
// files are completed beside, and octets a record today and at rest.
func BenchmarkAppend(b *testing.B) {
	for _, online := range []int{20_000, 200_000} {
		b.Run(fmt.Sprintf("online=%d", online), func(b *testing.B) {
			records := 2 * 5 * online // of five sessions a day
			for b.Loop() {
				b.StopTimer()
				s, err := Open(Options{Path: b.TempDir(), Key: testKey(b)})
				if err != nil {
					b.Fatal(err)
				}
				p := newProvider(online, records)
				p.begin(b, s)
				before := octetsOf(b, s.o.Path, "*"+journalExt)
				var spent time.Duration
				var today float64
				for n := 0; n < records; n += batchSize {
					batch := p.batch(batchSize)
					b.StartTimer()
					began := time.Now()
					if err := s.Append(batch); err != nil {
						b.Fatal(err)
					}
					spent += time.Since(began)
					b.StopTimer()
					if n == records/2 {
						today = float64(octetsOf(b, s.o.Path, "*"+journalExt)-before) / float64(n+batchSize)
					}
				}
				p.at = p.at.Add(24 * time.Hour)
				if err := s.Append(p.batch(2)); err != nil {
					b.Fatal(err)
				}
				began := time.Now()
				if err := s.Maintain(p.at); err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(records)/time.Since(began).Seconds(), "completed-records/s")
				b.ReportMetric(float64(records)/spent.Seconds(), "records/s")
				b.ReportMetric(today, "today-B/record")
				b.ReportMetric(float64(octetsOf(b, s.o.Path, "*"+dayExt))/float64(records), "B/record")
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}

// BenchmarkLookup asks for random ports at random times, with everything in the page cache and
// with nothing there, in histories of two sizes. The larger one takes minutes to make:
// HISTORY_RECORDS says how many records it has, HISTORY_PATH where to keep it for the next run.
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
		path := filepath.Join(b.TempDir(), "history")
		if keep := os.Getenv("HISTORY_PATH"); keep != "" {
			path = filepath.Join(keep, fmt.Sprint(records))
		}
		key := testKey(b)
		makeHistory(b, path, key, records)
		for _, way := range []string{"warm", "cold"} {
			b.Run(fmt.Sprintf("%s/records=%d", way, records), func(b *testing.B) { askHistory(b, path, key, way == "cold") })
		}
	}
}

// makeHistory makes a history of at least 20 days, unless it is there.
func makeHistory(b *testing.B, path string, key *Key, records int) {
	b.Helper()
	if _, err := os.Stat(path); err == nil {
		return
	}
	s, err := Open(Options{Path: path, Key: key})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	perDay := min(records/20, 1_250_000)
	p := newProvider(perDay/4, perDay)
	p.begin(b, s)
	began := time.Now()
	for n := 0; n < records; n += batchSize {
		if err := s.Append(p.batch(batchSize)); err != nil {
			b.Fatal(err)
		}
		select {
		case <-s.Completed():
			if err := s.Maintain(p.at); err != nil {
				b.Fatal(err)
			}
		default:
		}
	}
	b.Logf("%d records made in %s; %.1f octets a record at rest", records, time.Since(began).Round(time.Second),
		float64(octetsOf(b, path, "*"+dayExt))/float64(records))
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
	var times []time.Duration
	held := 0
	for b.Loop() {
		if cold && len(times)%20 == 0 {
			b.StopTimer()
			dropCache(b)
			b.StartTimer()
		}
		began := time.Now()
		if ask().State == Held {
			held++
		}
		times = append(times, time.Since(began))
	}
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(float64(times[len(times)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(100*float64(held)/float64(len(times)), "%held")
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

// BenchmarkRemoveDay removes a day's file beside lookups, and reports the longest of them.
func BenchmarkRemoveDay(b *testing.B) {
	path, key := filepath.Join(b.TempDir(), "history"), testKey(b)
	var longest time.Duration
	for b.Loop() {
		b.StopTimer()
		if err := os.RemoveAll(path); err != nil {
			b.Fatal(err)
		}
		makeHistory(b, path, key, 2_000_000)
		s, err := Open(Options{Path: path, Key: key})
		if err != nil {
			b.Fatal(err)
		}
		addresses, p := addressesOf(b, s), s.log("default")
		stop, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			rnd := rand.New(rand.NewPCG(2, 2))
			for {
				select {
				case <-stop:
					return
				default:
				}
				began := time.Now()
				if _, err := s.LookupOutside(Question{Outside: addresses[rnd.IntN(len(addresses))], Port: 5000, At: p.through.time()}); err != nil {
					b.Error(err)
				}
				longest = max(longest, time.Since(began))
			}
		}()
		b.StartTimer()
		for range 10 {
			if err := p.removeOldest(); err != nil {
				b.Error(err)
			}
		}
		b.StopTimer()
		close(stop)
		<-done
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(longest.Microseconds())/1000, "max-ms")
}
