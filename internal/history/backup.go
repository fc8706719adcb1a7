package history

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// Backup writes a copy of the store, as it is at one moment of each group, as a tar archive.
// Unpacked into an empty folder it is a store that Open opens. Everything goes on meanwhile: the
// files are opened at once, and what is removed or written anew can be read to the end. The signing
// key is not in it.
func (s *Store) Backup(w io.Writer) error {
	files, err := s.openAll()
	defer func() {
		for _, f := range files {
			_ = f.Close() // it was only read
		}
	}()
	archive := tar.NewWriter(w)
	for _, f := range files {
		if err == nil {
			err = f.write(archive)
		}
	}
	if err = errors.Join(err, archive.Close()); err != nil {
		return fmt.Errorf("history: backup: %w", err)
	}
	return nil
}

// openedFile is a file of a backup.
type openedFile struct {
	*os.File
	head tar.Header
}

// openAll opens all files, also with an error. None is completed, removed or written anew meanwhile.
func (s *Store) openAll() (files []openedFile, err error) {
	s.housework.Lock()
	defer s.housework.Unlock()
	for _, l := range s.logs("") {
		segments, sizes := l.files()
		for i, g := range segments {
			f, err := os.Open(g.file())
			if err != nil {
				return files, err
			}
			files = append(files, openedFile{f, tar.Header{
				Name: filepath.Base(l.dir) + "/" + filepath.Base(g.file()), Mode: 0o600, Size: sizes[i], ModTime: time.UnixMicro(int64(g.from)),
			}})
			if g.day == nil {
				continue
			}
			info, err := f.Stat()
			if err != nil {
				return files, err
			}
			files[len(files)-1].head.Size = info.Size()
		}
	}
	return files, nil
}

func (f *openedFile) write(archive *tar.Writer) error {
	if err := archive.WriteHeader(&f.head); err != nil {
		return err
	}
	_, err := io.Copy(archive, io.NewSectionReader(f, 0, f.head.Size))
	return err
}
