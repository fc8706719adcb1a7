package history

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// diskFiles is the file system, as far as the store changes it.
type diskFiles interface {
	create(name string) (diskFile, error) // which is not there, or is emptied
	open(name string) (diskFile, error)   // to write and read
	rename(from, to string) error         // durable when it returns
	remove(name string) error
	mkdir(name string) error
}

// diskFile is a file that is written.
type diskFile interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Truncate(size int64) error
	Sync() error
}

// osFiles is the file system of the machine.
type osFiles struct{}

func (osFiles) create(name string) (diskFile, error) {
	return os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
}

func (osFiles) open(name string) (diskFile, error) { return os.OpenFile(name, os.O_RDWR, 0) }

func (osFiles) rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(to))
}

func (osFiles) remove(name string) error { return os.Remove(name) }

func (osFiles) mkdir(name string) error {
	if err := os.MkdirAll(name, 0o700); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(name))
}

func syncFolder(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", name, err)
	}
	return nil
}

// writeFile writes a whole file durably: it has all of the data, or is not there.
func writeFile(files diskFiles, name string, write func(io.Writer) error) error {
	temporary := name + ".tmp"
	f, err := files.create(temporary)
	if err != nil {
		return err
	}
	err = write(io.NewOffsetWriter(f, 0))
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		_ = files.remove(temporary) // the next start removes it too
		return err
	}
	return files.rename(temporary, name)
}
