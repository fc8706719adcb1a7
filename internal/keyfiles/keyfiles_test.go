package keyfiles_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sessiond/sessiond/internal/keyfiles"
)

// TestLook: new contents count when two looks have found them, those that
// cannot be used leave the earlier ones in use and are reported once, and files
// count together.
func TestLook(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first"), filepath.Join(dir, "second")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(first, "a1")
	write(second, "b1")
	used := ""
	set, err := keyfiles.Open(func(files []keyfiles.File) error {
		texts := []string{}
		for _, f := range files {
			if f.Err != nil {
				return f.Err
			}
			texts = append(texts, string(f.Data))
		}
		if texts[0][1:] != texts[1][1:] {
			return errors.New("do not belong together")
		}
		used = strings.Join(texts, "+")
		return nil
	}, first, second)
	if err != nil || used != "a1+b1" {
		t.Fatalf("opened with %q, %v", used, err)
	}
	refused := false
	for i, step := range []struct {
		does    func()
		changed bool
		fails   bool
		used    string
	}{
		{func() {}, false, false, "a1+b1"},
		{func() { write(first, "a2") }, false, false, "a1+b1"},
		{func() {}, false, true, "a1+b1"},
		{func() {}, false, false, "a1+b1"}, // reported once
		{func() { write(second, "b2") }, false, false, "a1+b1"},
		{func() {}, true, false, "a2+b2"},
		{func() {}, false, false, "a2+b2"},
		{func() { write(first, "a3"); write(second, "b3") }, false, false, "a2+b2"},
		{func() { write(second, "b4") }, false, false, "a2+b2"}, // still being written
		{func() { write(first, "a4") }, false, false, "a2+b2"},
		{func() {}, true, false, "a4+b4"},
		{func() { _ = os.Remove(first) }, false, false, "a4+b4"},
		{func() {}, false, true, "a4+b4"},
		{func() { write(first, "a4") }, false, false, "a4+b4"}, // as before
		{func() { _ = os.Remove(first) }, false, false, "a4+b4"},
		{func() {}, false, true, "a4+b4"}, // reported again
	} {
		step.does()
		changed, err := set.Look()
		switch {
		case step.fails:
			refused = true
		case changed || i == 13: // contents of before
			refused = false
		}
		if set.Refused() != refused {
			t.Errorf("step %d: refused %v, want %v", i, !refused, refused)
		}
		if changed != step.changed || (err != nil) != step.fails || used != step.used {
			t.Errorf("step %d: changed %v, %v, used %q; want %+v", i, changed, err, used, step)
		}
	}
	if set.String() != first+", "+second {
		t.Errorf("named %q", set)
	}
}

func TestFileIsBounded(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "large")
	if err := os.WriteFile(path, make([]byte, 1<<20+1), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := keyfiles.Open(func(files []keyfiles.File) error { return files[0].Err }, path)
	if err == nil || !strings.Contains(err.Error(), "octets") {
		t.Errorf("Open: %v", err)
	}
}
