package history

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/sessiond/sessiond/internal/nat"
)

// filled returns a store with three complete days and a running one: of each day allocations
// and releases of many users, in blocks of their own.
func filled(t testing.TB, perDay int) (*Store, Options) {
	t.Helper()
	o := Options{Path: t.TempDir(), Key: testKey(t)}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // a test may have closed it
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	if err := s.Resume(Restart{Group: "default", Position: "0-1", To: at}); err != nil {
		t.Fatal(err)
	}
	id := 0
	for range 4 {
		b := Batch{Group: "default"}
		var open []nat.Event
		for n := range perDay {
			at = at.Add(time.Second)
			first := nat.Port(1024 + 64*(n%1000))
			e := nat.Event{
				Kind: nat.Allocated, At: at, Block: nat.Block{Outside: outsideOf(n / 1000), First: first, Last: first + 63},
				Holder: identityOf(id%(perDay/2+1), at),
			}
			open = append(open, e)
			id++
			b.Entries = append(b.Entries, Entry{fmt.Sprintf("%d-1", id), []nat.Event{e}})
		}
		for _, e := range open {
			at = at.Add(time.Second)
			e.Kind, e.Since, e.At = nat.Released, e.At, at
			id++
			b.Entries = append(b.Entries, Entry{fmt.Sprintf("%d-1", id), []nat.Event{e}})
		}
		at = at.Truncate(24 * time.Hour).Add(36 * time.Hour)
		if err := s.Append(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Maintain(at); err != nil {
		t.Fatal(err)
	}
	return s, o
}

// reopened opens a store again, and verifies it. A store that does not open has no flaw to
// show: its error is returned.
func reopened(t *testing.T, o Options, known ...string) (*Flaw, error) {
	t.Helper()
	s, err := Open(o)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	list, err := s.Verify(t.Context(), "", known...)
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 1 {
		t.Fatalf("%d groups", len(list))
	}
	return list[0].Flaw, nil
}

// filesOf returns the files of the group, the oldest one first.
func filesOf(t *testing.T, o Options) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(o.Path, "default", "*"))
	if err != nil || len(list) != 4 {
		t.Fatalf("files %v, %v; want 3 days and a journal", list, err)
	}
	return list
}

// rewrite writes a day's file anew after a change of its content, with another note or the
// same.
func rewrite(t *testing.T, path string, change func(c *dayContent), sign func(old, text string) string) {
	t.Helper()
	from, number, _, _ := parseName(filepath.Base(path))
	d := &dayFile{path: path, number: number, from: from}
	var c *dayContent
	signed := ""
	err := d.with(func(r *dayReader) (err error) {
		n, err := parseDayNote(textOf(r.note))
		if err != nil {
			return err
		}
		signed = r.note
		all, err := r.all()
		c = &all
		c.dayNote = *n
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	change(c)
	if err := writeDay(osFiles{}, path, c, func(text string) (string, error) { return sign(signed, text), nil }); err != nil {
		t.Fatal(err)
	}
	d.close(true)
}

func keepNote(old, _ string) string { return old }

// patchSpans changes the records of a day's file, and keeps everything else: checks, hashes and
// the checkpoint are those of before, but for checks that change moves.
func patchSpans(t *testing.T, path string, change func(spans []span, checks []byte) ([]span, []byte)) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := newDayReader(path, f)
	if err != nil {
		t.Fatal(err)
	}
	w := &bytes.Buffer{}
	d := &dayWriter{out: w}
	d.write([]byte(dayMagic))
	var all []span
	var checks []byte
	var salts []blockSalts
	for i := range r.tables[tableSpans].keys {
		b, err := r.spanBlock(i)
		if err != nil {
			t.Fatal(err)
		}
		all, checks, salts = append(all, b.spans...), append(checks, b.checks...), append(salts, b.salts)
	}
	stored := make([]byte, len(all)/spanRows*tlog.HashSize)
	if _, err := f.ReadAt(stored, r.hashes); err != nil {
		t.Fatal(err)
	}
	all, checks = change(all, checks)
	d.spans(all, checks, salts)
	for _, table := range []int{tableHolders, tableInsides} {
		for i := range r.tables[table].keys {
			if d.raw, _, err = r.read(table, i); err != nil {
				t.Fatal(err)
			}
			d.block(table, r.tables[table].keys[i])
		}
	}
	d.write(stored[:len(all)/spanRows*tlog.HashSize])
	d.foot(r.note, &dayContent{dayNote: dayNote{number: r.number, from: r.from}, list: all}, r.counts[tableHolders], r.counts[tableInsides])
	if d.err != nil {
		t.Fatal(d.err)
	}
	if err := os.WriteFile(path, w.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestVerifyNamesTheFirstBadRecord: each kind of damage is found, at its record where the file
// can still be read, and in its file in any case.
func TestVerifyNamesTheFirstBadRecord(t *testing.T) {
	base, o := filled(t, 300)
	if err := base.Close(); err != nil {
		t.Fatal(err)
	}
	flip := func(path string, at func(size int) int) {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		raw[at(len(raw))] ^= 4
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	remove := func(path string) {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		damage func(files []string)
		kind   FlawKind
		file   int
		number uint64
	}{
		"none":          {func([]string) {}, "", 0, 0},
		"octet of day":  {func(f []string) { flip(f[1], func(int) int { return 200 }) }, FlawChanged, 1, 1},
		"file missing":  {func(f []string) { remove(f[1]) }, FlawMissing, 2, 1},
		"first missing": {func(f []string) { remove(f[0]) }, FlawMissing, 1, 1},
		"truncated file": {func(f []string) {
			if err := os.Truncate(f[1], 3000); err != nil {
				t.Fatal(err)
			}
		}, FlawTruncated, 1, 1},
		"record changed": {func(f []string) {
			patchSpans(t, f[1], func(l []span, k []byte) ([]span, []byte) { l[100].released++; l[100].vacant++; return l, k })
		}, FlawChanged, 1, 101},
		"records swapped": {func(f []string) {
			patchSpans(t, f[1], func(l []span, k []byte) ([]span, []byte) { l[50], l[51] = l[51], l[50]; return l, k })
		}, FlawChanged, 1, 51},
		"record dropped": {func(f []string) {
			patchSpans(t, f[1], func(l []span, k []byte) ([]span, []byte) {
				return slices.Delete(l, 70, 71), slices.Delete(k, 70*checkSize, 71*checkSize)
			})
		}, FlawChanged, 1, 71},
		"last record dropped": {func(f []string) {
			rewrite(t, f[1], func(c *dayContent) { c.list = c.list[:299] }, keepNote)
		}, FlawTruncated, 1, 300},
		"holder changed": {func(f []string) {
			rewrite(t, f[1], func(c *dayContent) { c.holders[3].identity = appendIdentity(nil, &nat.Identity{UserName: "somebody"}) }, keepNote)
		}, FlawChanged, 1, 0},
		"sealed anew by another key": {func(f []string) {
			other := testKey(t)
			rewrite(t, f[1], func(c *dayContent) { c.list = c.list[:200] }, func(_, text string) string { s, _ := other.sign(text); return s })
		}, FlawUnsigned, 1, 1},
		"octet of journal": {func(f []string) { flip(f[3], func(int) int { return 100 }) }, FlawChanged, 3, 0},
	} {
		t.Run(name, func(t *testing.T) {
			copied := Options{Path: t.TempDir(), Key: o.Key}
			if err := os.CopyFS(copied.Path, os.DirFS(o.Path)); err != nil {
				t.Fatal(err)
			}
			files := filesOf(t, copied)
			c.damage(files)
			flaw, err := reopened(t, copied)
			switch {
			case err != nil && errors.Is(err, ErrDamaged) && strings.Contains(err.Error(), files[c.file]):
			case err != nil:
				t.Error(err)
			case c.kind == "":
				if flaw != nil {
					t.Errorf("%+v", *flaw)
				}
			case flaw == nil || flaw.Kind != c.kind || flaw.File != files[c.file] || c.number > 0 && flaw.Number != c.number:
				t.Errorf("flaw %+v, want %s of record %d of %s", flaw, c.kind, c.number, files[c.file])
			}
		})
	}
}

// TestVerifyRunningJournal: a flipped octet of the running journal is found at its entry, and
// a shorter journal by a checkpoint that was kept elsewhere.
func TestVerifyRunningJournal(t *testing.T) {
	s, o := filled(t, 20)
	known, err := s.Checkpoint("default")
	if err != nil {
		t.Fatal(err)
	}
	l := s.log("default")
	entries, path := l.running().entries, l.running().path
	if list, err := s.Verify(t.Context(), "default", known); err != nil || list[0].Flaw != nil || list[0].Entries != entries || list[0].Files != 4 {
		t.Fatalf("%+v, %v", list, err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(whole); at += 1 + len(whole)/60 {
		bad := bytes.Clone(whole)
		bad[at] ^= 1
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		list, err := s.Verify(t.Context(), "default", known)
		if err != nil || list[0].Flaw == nil || list[0].Flaw.File != path {
			t.Fatalf("octet %d: %+v, %v", at, list, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, whole[:len(whole)-10], 0o600); err != nil { // the checkpoint is in the last frame
		t.Fatal(err)
	}
	if flaw, err := reopened(t, o, known); err != nil || flaw != nil {
		t.Errorf("%+v, %v: a crash cuts off the last frame, too", flaw, err)
	}
	if err := os.WriteFile(path, whole[:len(whole)-1500], 0o600); err != nil {
		t.Fatal(err)
	}
	if flaw, err := reopened(t, o, known); err != nil || flaw == nil || flaw.Kind != FlawTruncated {
		t.Errorf("%+v, %v, want it truncated", flaw, err)
	}
}

// TestProofs: the proof of a record holds without the store, and no octet of it can be another.
func TestProofs(t *testing.T) {
	s, o := filled(t, 300)
	at := time.Date(2026, 3, 1, 12, 0, 30, 0, time.UTC)
	a, err := s.LookupOutside(Question{Outside: outsideOf(0), Port: 1024 + 64*7 + 5, At: at})
	if err != nil || a.State != Held {
		t.Fatalf("%+v, %v", a, err)
	}
	text, err := s.Prove(a.Record)
	if err != nil {
		t.Fatal(err)
	}
	got, err := VerifyProof(text, o.Key.Public())
	if err != nil || !reflect.DeepEqual(got, a.Record) {
		t.Errorf("%+v, %v, want %+v", got, err, a.Record)
	}
	if _, err := VerifyProof(text, testKey(t).Public()); err == nil {
		t.Error("another key verifies it")
	}
	for i := range text {
		bad := bytes.Clone(text)
		bad[i] ^= 1
		if got, err := VerifyProof(bad, o.Key.Public()); err == nil && !reflect.DeepEqual(got, a.Record) {
			t.Fatalf("with octet %d changed it proves %+v", i, got)
		}
	}
	running := time.Date(2026, 3, 4, 12, 0, 30, 0, time.UTC)
	if a, err = s.LookupOutside(Question{Outside: outsideOf(0), Port: 1024, At: running}); err != nil || a.State != Held {
		t.Fatalf("%+v, %v", a, err)
	}
	if _, err := s.Prove(a.Record); !errors.Is(err, ErrRunning) {
		t.Errorf("proof of a running day: %v", err)
	}
}

// TestErase: a user's name is in no file any more, its records are still there, and everything
// verifies.
func TestErase(t *testing.T) {
	s, o := filled(t, 100)
	user := identityOf(3, time.Time{}).UserName
	question := Filter{User: user}
	before, _, err := s.ListRecords(question, "", 1000)
	if err != nil || len(before) < 4 {
		t.Fatalf("%d records, %v", len(before), err)
	}
	n, err := s.Erase(user)
	if err != nil || n < 4 {
		t.Fatalf("%d identities, %v", n, err)
	}
	if after, _, err := s.ListRecords(question, "", 1000); err != nil || len(after) != 0 {
		t.Errorf("%d records, %v", len(after), err)
	}
	for _, r := range before {
		a, err := s.LookupOutside(Question{Outside: r.Outside, Port: r.First, At: r.Allocated})
		if err != nil || a.State != Held || !a.Record.Erased || !a.Record.Allocated.Equal(r.Allocated) || a.Record.Holder.UserName != "" {
			t.Errorf("%+v, %v", a, err)
		}
	}
	err = s.log("default").segments[0].day.with(func(r *dayReader) error {
		c, err := r.all()
		erased := 0
		for i, seen := 0, map[uint64]bool{}; err == nil && i < len(c.list); i++ {
			ref, block := c.list[i].ref, c.salts[i/spanRows]
			if seen[ref] {
				continue
			}
			seen[ref] = true
			none := block.of(i%spanRows) == [saltSize]byte{}
			if gone := c.holders[ref].identity == nil; none != gone || len(block) == saltSize {
				t.Errorf("record %d: the holder is erased: %t; its salt is: %t, of %d octets", i, gone, none, len(block))
			} else if gone {
				erased++
			}
		}
		if erased == 0 {
			t.Error("nobody is erased")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s.Erase(user); err != nil || again != 0 {
		t.Errorf("%d identities at the second time, %v", again, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if flaw, err := reopened(t, o); err != nil || flaw != nil {
		t.Errorf("%+v, %v", flaw, err)
	}
	journal, err := os.ReadFile(filesOf(t, o)[3])
	if err != nil || bytes.Contains(journal, []byte(user)) {
		t.Errorf("the name is in the journal: %v", err)
	}
}

// TestBackup: a copy that is made while entries come is a store that verifies.
func TestBackup(t *testing.T) {
	s, o := filled(t, 200)
	var copied bytes.Buffer
	done := make(chan error)
	go func() {
		var err error
		at := time.Date(2026, 3, 4, 20, 0, 0, 0, time.UTC)
		for i := range 200 {
			e := nat.Event{Kind: nat.Allocated, At: at.Add(time.Duration(i) * time.Minute), Block: nat.Block{Outside: outsideOf(9), First: 1024, Last: 1087}}
			err = errors.Join(err, s.Append(Batch{Group: "default", Entries: []Entry{{fmt.Sprintf("%d-1", 100000+i), []nat.Event{e}}}}))
		}
		done <- err
	}()
	if err := s.Backup(&copied); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	restored := Options{Path: t.TempDir(), Key: o.Key}
	for archive := tar.NewReader(&copied); ; {
		head, err := archive.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(restored.Path, head.Name)
		raw, err := io.ReadAll(archive)
		if err == nil {
			err = errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, raw, 0o600))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if flaw, err := reopened(t, restored); err != nil || flaw != nil {
		t.Errorf("%+v, %v", flaw, err)
	}
}
