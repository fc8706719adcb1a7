package history

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"testing"
	"time"
)

// TestSlowBackup: housework goes on while a backup is written, and the backup is as of its begin.
func TestSlowBackup(t *testing.T) {
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	q := newQuiet(t, noon)
	q.read(noon.AddDate(0, 0, 1))
	q.must(q.Maintain(noon))
	var archive bytes.Buffer
	worked := false
	err := q.Backup(writerFunc(func(p []byte) (int, error) {
		if !worked {
			worked = true
			q.read(noon.AddDate(0, 0, 2))
			q.must(q.Maintain(noon))
			if n, err := q.Erase(identityOf(1, noon).UserName); err != nil || n == 0 {
				t.Errorf("erased %d, %v", n, err)
			}
		}
		return archive.Write(p)
	}))
	if err != nil || !worked {
		t.Fatal(worked, err)
	}
	copied := Options{Path: t.TempDir(), Key: q.o.Key}
	q.must(os.Mkdir(copied.Path+"/default", 0o700))
	for r := tar.NewReader(&archive); ; {
		head, err := r.Next()
		if err == io.EOF {
			break
		}
		q.must(err)
		data, err := io.ReadAll(r)
		q.must(err)
		q.must(os.WriteFile(copied.Path+"/"+head.Name, data, 0o600))
	}
	q.must(q.Close())
	if q.Store, err = Open(copied); err != nil {
		t.Fatal(err)
	}
	if list, err := q.Verify(t.Context(), ""); err != nil || list[0].Flaw != nil || list[0].Files != 2 {
		t.Errorf("%+v, %v", list, err)
	}
	q.expect(noon.Add(time.Hour), "user1")
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
