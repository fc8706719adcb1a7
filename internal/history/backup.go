package history

import (
	"archive/tar"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// Backup writes a copy of the store, as it is at one moment of each group, as a tar archive.
// Unpacked into an empty folder it is a store that Open opens. Appends go on meanwhile; files
// are neither completed nor removed. The signing key is not in it.
func (s *Store) Backup(w io.Writer) error {
	s.housework.Lock()
	defer s.housework.Unlock()
	archive := tar.NewWriter(w)
	for _, l := range s.logs("") {
		segments, sizes := l.files()
		for i, g := range segments {
			if err := backupFile(archive, filepath.Base(l.dir), g, sizes[i]); err != nil {
				return fmt.Errorf("history: group %s: backup: %w", l.group, err)
			}
		}
	}
	if err := archive.Close(); err != nil {
		return fmt.Errorf("history: backup: %w", err)
	}
	return nil
}

func backupFile(archive *tar.Writer, folder string, g *segment, size int64) error {
	path := g.file()
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if g.day != nil {
		info, err := f.Stat()
		if err != nil {
			return err
		}
		size = info.Size()
	}
	head := &tar.Header{Name: folder + "/" + filepath.Base(path), Mode: 0o600, Size: size, ModTime: time.UnixMicro(int64(g.from))}
	if err := archive.WriteHeader(head); err != nil {
		return err
	}
	_, err = io.Copy(archive, io.NewSectionReader(f, 0, size))
	return err
}
