package natlog

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/testenv"
)

// event returns the nth event of a test: each has a time of its own.
func event(n int) nat.Event {
	return nat.Event{
		Kind: nat.Allocated, At: time.UnixMilli(int64(n)).UTC(), Group: "default",
		Block:  nat.Block{Outside: netip.MustParseAddr("198.51.100.7"), First: 1024, Last: 1535},
		Holder: nat.Identity{Inside: netip.MustParseAddr("100.64.0.7"), UserName: "alice"},
	}
}

func eventsFrom(first, n int) (list []nat.Event) {
	for i := range n {
		list = append(list, event(first+i))
	}
	return list
}

func openTest(t testing.TB, path string, most int64) *spool {
	t.Helper()
	s, err := openSpool(path, most)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.close() })
	return s
}

func mustAppend(t testing.TB, s *spool, position string, events []nat.Event) {
	t.Helper()
	if err := s.append("default", position, events); err != nil {
		t.Fatal(err)
	}
}

// all returns the events in a spool.
func all(t testing.TB, s *spool) (events []nat.Event) {
	t.Helper()
	list, err := s.read(0, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range list {
		events = append(events, c.events...)
	}
	return events
}

func TestSpoolKeepsOrderAndPositions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "spool")
	s := openTest(t, path, 1<<30)
	mustAppend(t, s, "1-0", eventsFrom(0, 3*chunkEvents/2))
	mustAppend(t, s, "2-0", nil)
	if err := s.append("other", "9-9", eventsFrom(3*chunkEvents/2, 1)); err != nil {
		t.Fatal(err)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, path, 1<<30)
	if got := all(t, s); !reflect.DeepEqual(got, eventsFrom(0, 3*chunkEvents/2+1)) {
		t.Errorf("%d events came back", len(got))
	}
	for group, want := range map[string]string{"default": "2-0", "other": "9-9", "third": ""} {
		if got, err := s.position(group); got != want || err != nil {
			t.Errorf("position of %s is %q, %v; want %q", group, got, err, want)
		}
	}
	list, err := s.read(0, chunkEvents)
	if err != nil || len(list) != 1 || len(list[0].events) != chunkEvents {
		t.Fatalf("one chunk is %d, %v", len(list), err)
	}
	if err := s.remove(list[0].number, 0); err != nil {
		t.Fatal(err)
	}
	if got := all(t, s); !reflect.DeepEqual(got, eventsFrom(chunkEvents, chunkEvents/2+1)) {
		t.Errorf("%d events are left", len(got))
	}
	if c, err := s.counts(); err != nil || c.events != chunkEvents/2+1 || c.dropped != 0 {
		t.Errorf("counts are %+v, %v", c, err)
	}
	if err := s.remove(1<<60, 0); err != nil {
		t.Fatal(err)
	}
	if c, err := s.counts(); err != nil || c != (spoolCounts{}) {
		t.Errorf("an empty spool has %+v, %v", c, err)
	}
}

func TestSpoolIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "spool")
	s := openTest(t, path, LeastSpool)
	const rounds = 40
	for i := range rounds {
		mustAppend(t, s, strconv.Itoa(i), eventsFrom(i*chunkEvents, chunkEvents))
	}
	c, err := s.counts()
	if err != nil || c.size > LeastSpool || c.size < LeastSpool/2 {
		t.Fatalf("%d octets, %v", c.size, err)
	}
	got := all(t, s)
	if c.dropped+uint64(len(got)) != rounds*chunkEvents || c.events != uint64(len(got)) || c.dropped == 0 {
		t.Errorf("%d events are left, and %d were dropped", len(got), c.dropped)
	}
	if !reflect.DeepEqual(got, eventsFrom(rounds*chunkEvents-len(got), len(got))) {
		t.Error("the oldest did not make room")
	}
	file, err := os.Stat(path)
	if err != nil || file.Size() > 4*LeastSpool {
		t.Errorf("the file has %d octets, %v", file.Size(), err)
	}
}

func TestDamagedChunkIsCounted(t *testing.T) {
	s := openTest(t, filepath.Join(t.TempDir(), "spool"), 1<<30)
	for i := range 3 {
		mustAppend(t, s, "", eventsFrom(10*i, 10))
	}
	err := s.db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket(chunksBucket).Put(chunkKey(2), appendCount([]byte(`{"event":"allo`), 10))
	})
	if err != nil {
		t.Fatal(err)
	}
	list, err := s.read(0, 1<<30)
	if err != nil || len(list) != 3 || list[1].unread != 10 || list[1].unreadBy == nil || len(list[0].events)+len(list[2].events) != 20 {
		t.Errorf("the chunks are %+v, %v", list, err)
	}
}

// TestDamagedFileIsAnError: whichever page of the file is damaged, reading and writing end with an
// error or go well, and nothing panics.
func TestDamagedFileIsAnError(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "spool")
	s := openTest(t, path, 1<<30)
	for i := range 4 {
		mustAppend(t, s, "1", eventsFrom(i*40, 40))
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	page, failed := os.Getpagesize(), 0
	for at := 0; at < len(whole); at += page {
		damaged := bytes.Clone(whole)
		copy(damaged[at:], bytes.Repeat([]byte{0xa5}, page))
		path := filepath.Join(dir, strconv.Itoa(at))
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := openSpool(path, 1<<30)
		if err == nil {
			_, reads := s.read(0, 1<<30)
			err = errors.Join(reads, s.append("default", "2", eventsFrom(0, 10)), s.remove(5, 0))
			err = errors.Join(err, guarded(s.close))
		}
		if err != nil {
			failed++
		}
	}
	if failed == 0 {
		t.Errorf("no damage of %d pages was noticed", len(whole)/page)
	}
}

func TestSpoolRefused(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "spool")
	openTest(t, path, 1<<30)
	rubbish := filepath.Join(dir, "rubbish")
	if err := os.WriteFile(rubbish, []byte(strings.Repeat("rubbish ", 4096)), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		rubbish:                          "move the file away",
		filepath.Join(dir, "none", "of"): "no such file",
	} {
		if s, err := openSpool(path, 1<<30); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, %v", path, s, err)
		}
	}
	if _, err := openSpool(filepath.Join(dir, "small"), 10); err == nil || !strings.Contains(err.Error(), "at least 1048576") {
		t.Errorf("a spool of 10 octets: %v", err)
	}
}

// TestSpoolOnFullDisk: an Append that does not fit is an error, and has changed nothing; once
// there is room again it succeeds.
func TestSpoolOnFullDisk(t *testing.T) {
	testenv.Require(t, testenv.Root) // to mount a small disk
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	s := openTest(t, filepath.Join(dir, "spool"), 1<<30)
	mustAppend(t, s, "1", eventsFrom(0, 100))
	filler := filepath.Join(dir, "filler")
	file, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = file.Write(make([]byte, 4096))
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	appended := 100
	for err = nil; err == nil && appended < 1<<20; {
		if err = s.append("default", strconv.Itoa(appended), eventsFrom(appended, 1000)); err == nil {
			appended += 1000
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("after %d events: %v", appended, err)
	}
	if got := all(t, s); !reflect.DeepEqual(got, eventsFrom(0, appended)) {
		t.Fatalf("%d events are left of %d", len(got), appended)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, s, "last", eventsFrom(appended, 1000))
	if got := all(t, s); !reflect.DeepEqual(got, eventsFrom(0, appended+1000)) {
		t.Errorf("%d events are left of %d", len(got), appended+1000)
	}
}

// TestSpoolOutlivesKills: what Append has answered for is in the spool after a kill -9, and the
// position is that of the events.
func TestSpoolOutlivesKills(t *testing.T) {
	const variable = "NATLOG_SPOOL"
	if path := os.Getenv(variable); path != "" {
		s, err := openSpool(path, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		c, err := s.counts()
		if err != nil {
			t.Fatal(err)
		}
		for n := int(c.events); ; n += 10 {
			mustAppend(t, s, strconv.Itoa(n+10), eventsFrom(n, 10))
			fmt.Println(n + 10)
		}
	}
	path := filepath.Join(t.TempDir(), "spool")
	for range 10 {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), variable+"="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		promised := 0
		lines := bufio.NewScanner(out)
		for i := 0; i < 20 && lines.Scan(); i++ {
			if promised, err = strconv.Atoi(lines.Text()); err != nil {
				t.Error(lines.Text())
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() {
			if n, err := strconv.Atoi(lines.Text()); err == nil {
				promised = n
			}
		}
		_ = cmd.Wait() // it was killed
		s, err := openSpool(path, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		got := all(t, s)
		position, err := s.position("default")
		if err != nil || len(got) < promised || promised == 0 || position != strconv.Itoa(len(got)) || !reflect.DeepEqual(got, eventsFrom(0, len(got))) {
			t.Fatalf("%d events at position %s, promised %d, %v", len(got), position, promised, err)
		}
		if err := s.close(); err != nil {
			t.Fatal(err)
		}
	}
}

// BenchmarkSpool measures an event on its way into the spool and out of it, with all writes to
// the disk.
func BenchmarkSpool(b *testing.B) {
	for _, batch := range []int{1, chunkEvents} {
		b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) {
			s := openTest(b, filepath.Join(b.TempDir(), "spool"), 1<<30)
			events := eventsFrom(0, batch)
			for n := 0; b.Loop(); n++ {
				mustAppend(b, s, "1", events)
				if list, err := s.read(uint64(n), batch); err != nil || len(list) != 1 {
					b.Fatal(list, err)
				}
				if err := s.remove(uint64(n)+1, 0); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(batch*b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
