package history

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/testenv"
)

// TestEveryChangeFails: whichever change of the disk a process is killed within, or whichever
// ones fail, everything that was acknowledged is there, and the store goes on.
func TestEveryChangeFails(t *testing.T) {
	key := testKey(t)
	for name, failures := range map[string]int{"killed": 0, "one fails": 1, "five fail": 5} {
		t.Run(name, func(t *testing.T) {
			for n := 0; ; n++ {
				w := newWalk(t, 21, key)
				for range 80 {
					w.step()
				}
				w.files.set(n, failures)
				w.storeAll()
				if w.files.intact() {
					t.Logf("%d changes", n)
					return
				}
				w.files.set(-1, 0)
				w.check(40)
			}
		})
	}
}

// storeAll stores everything of the log, and completes files, in spite of failures.
func (w *walk) storeAll() {
	for {
		err := w.store.Append(Batch{Group: "default", Epoch: "e", Entries: w.log, Through: w.clock()})
		if err == nil {
			err = w.store.Maintain(w.clock())
		}
		switch {
		case err == nil:
			w.agree()
			return
		case errors.Is(err, errKilled):
			w.kill()
		case !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EIO):
			w.t.Fatal(err)
		}
		w.agree()
		w.ask(5)
	}
}

// TestKilledHousework: a kill within an erasure or a removal leaves a store that verifies, and
// the next call completes it.
func TestKilledHousework(t *testing.T) {
	user := identityOf(3, time.Time{}).UserName
	end := time.Date(2026, 3, 4, 14, 0, 0, 0, time.UTC)
	for name, work := range map[string]func(s *Store) error{
		"erase":  func(s *Store) error { _, err := s.Erase(user); return err },
		"remove": func(s *Store) error { return s.Maintain(end) },
	} {
		t.Run(name, func(t *testing.T) {
			base, o := filled(t, 20)
			if err := base.Close(); err != nil {
				t.Fatal(err)
			}
			for n, whole := 0, false; !whole; n++ {
				copied := Options{Path: t.TempDir(), Key: o.Key, MaxAge: 36 * time.Hour}
				if err := os.CopyFS(copied.Path, os.DirFS(o.Path)); err != nil {
					t.Fatal(err)
				}
				files := &faultyFiles{left: -1, rnd: newWorld(uint64(n)).rnd}
				copied.files = files
				s, err := Open(copied)
				if err != nil {
					t.Fatal(err)
				}
				files.set(n, 0)
				err = work(s)
				whole = files.intact()
				if whole != (err == nil) {
					t.Fatalf("killed at change %d: %v", n, err)
				}
				files.closeAll()
				_ = s.lock.Close()
				copied.files = nil
				if s, err = Open(copied); err != nil {
					t.Fatalf("killed at change %d: %v", n, err)
				}
				for range 2 {
					list, err := s.Verify(t.Context(), "")
					if err != nil || list[0].Flaw != nil {
						t.Fatalf("killed at change %d: %+v, %v", n, list, err)
					}
					if err := work(s); err != nil {
						t.Fatal(err)
					}
				}
				if list, _, err := s.ListRecords(Filter{User: user}, "", 100); err != nil || (len(list) == 0) != (name == "erase") {
					t.Fatalf("killed at change %d: %d records of the user, %v", n, len(list), err)
				}
				if p, _ := s.Progress("default"); p.First.Day() != map[string]int{"erase": 1, "remove": 2}[name] {
					t.Fatalf("killed at change %d: the history begins at %s", n, p.First)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestFrameCutAnywhere: a journal that ends within its last frame, at whichever octet, has what
// was acknowledged before that, and goes on.
func TestFrameCutAnywhere(t *testing.T) {
	s, o := filled(t, 4)
	l := s.log("default")
	path, size := l.running().path, l.running().size
	before, _ := s.Progress("default")
	block := nat.Block{Outside: outsideOf(9), First: 1024, Last: 2047}
	at := before.Through.Add(time.Minute)
	last := Batch{Group: "default", Entries: []Entry{{"1000-1", []nat.Event{{Kind: nat.Allocated, At: at, Block: block, Holder: identityOf(1, at)}}}}, Through: at}
	if err := errors.Join(s.Append(last), s.Close()); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := size; cut < int64(len(whole)); cut++ {
		if err := os.WriteFile(path, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err = Open(o); err != nil {
			t.Fatalf("cut at octet %d: %v", cut, err)
		}
		if p, _ := s.Progress("default"); p.Position != before.Position || !p.Through.Equal(before.Through) {
			t.Fatalf("cut at octet %d: %+v, want %+v", cut, p, before)
		}
		if a, err := s.LookupOutside(Question{Outside: block.Outside, Port: block.First, At: at}); err != nil || a.Because != CauseNotRead {
			t.Fatalf("cut at octet %d: %+v, %v", cut, a, err)
		}
		if err := s.Append(last); err != nil {
			t.Fatal(err)
		}
		if a, err := s.LookupOutside(Question{Outside: block.Outside, Port: block.First, At: at}); err != nil || a.State != Held {
			t.Fatalf("cut at octet %d, and told again: %+v, %v", cut, a, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if flaw, err := reopened(t, o); err != nil || flaw != nil {
			t.Fatalf("cut at octet %d: %+v, %v", cut, flaw, err)
		}
	}
}

// TestFullDisk: on a disk that is full, appends and files of days fail, and everything
// acknowledged is answered. With space again both go on. Entries that the log lost meanwhile
// are a gap in the answers.
func TestFullDisk(t *testing.T) {
	testenv.Require(t, testenv.Root) // to mount a small disk
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=2m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(disk, unix.MNT_DETACH) })
	o := Options{Path: filepath.Join(disk, "history"), Key: testKey(t)}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	p := newProvider(500, 5000)
	p.begin(t, s)
	ballast := filepath.Join(disk, "ballast")
	fill := func() {
		f, err := os.OpenFile(ballast, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		for err == nil {
			_, err = f.Write(make([]byte, 512))
		}
		_ = f.Close()
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
	var told []Batch // and acknowledged
	answered := func(want State, because Cause, b Batch) {
		t.Helper()
		for _, e := range b.Entries {
			if e := &e.Events[0]; e.Kind == nat.Allocated {
				a, err := s.LookupOutside(Question{Outside: e.Outside, Port: e.Last, At: e.At})
				if err != nil || a.State != want || a.Because != because || want == Held && a.Record.Holder.UserName != e.Holder.UserName {
					t.Fatalf("%+v at %s: %+v, %v; want state %d, %q", e.Block, e.At, a, err, want, because)
				}
			}
		}
	}
	batch := func(records int) Batch {
		b := p.batch(records)
		b.Through = p.at
		return b
	}
	for range 4 {
		told = append(told, batch(500))
		if err := s.Append(told[len(told)-1]); err != nil {
			t.Fatal(err)
		}
	}
	fill()
	failed := batch(500)
	for err = s.Append(failed); err == nil; err = s.Append(failed) { // there may be room in the last page
		told = append(told, failed)
		failed = batch(500)
	}
	for range 3 {
		if err = s.Append(failed); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("append on a full disk: %v", err)
		}
	}
	answered(Unknown, CauseNotRead, failed)
	for _, b := range told {
		answered(Held, "", b)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(o); err != nil { // a start on a full disk
		t.Fatal(err)
	}
	for _, b := range told {
		answered(Held, "", b)
	}

	free := func() {
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
	}
	free()
	if err := s.Append(failed); err != nil {
		t.Fatal(err)
	}
	answered(Held, "", failed)
	p.at = p.at.Add(24 * time.Hour)
	if err := s.Append(batch(2)); err != nil { // a new day
		t.Fatal(err)
	}
	fill()
	if err := s.Maintain(p.at); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("a day's file on a full disk: %v", err)
	}
	answered(Held, "", failed)
	free()
	if err := s.Maintain(p.at); err != nil {
		t.Fatal(err)
	}
	answered(Held, "", failed)

	lost := batch(100)
	r := Restart{Group: "default", Position: fmt.Sprintf("%d-1", p.entries), From: lost.Entries[0].Events[0].At, To: p.at.Add(time.Second), Reason: "the disk was full"}
	for _, e := range p.online {
		e.Kind, e.Since = nat.Interim, e.At
		r.Live = append(r.Live, e)
	}
	if err := s.Resume(r); err != nil {
		t.Fatal(err)
	}
	answered(Unknown, CauseGap, lost)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if flaw, err := reopened(t, o); err != nil || flaw != nil {
		t.Fatalf("%+v, %v", flaw, err)
	}
}
