package history

import (
	"errors"
	"sync"
	"syscall"
)

var errKilled = errors.New("killed")

// faultyFiles is a file system that fails: from one write on for ever, as for a process that is
// killed within it, or for some writes, as a full disk.
type faultyFiles struct {
	osFiles

	mu    sync.Mutex
	left  int // writes until it fails; negative: it does not
	full  int // writes that then fail; 0: all
	dead  bool
	files []diskFile
}

// step counts a write, and tells how much of it is done.
func (f *faultyFiles) step() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.dead:
		return errKilled
	case f.left < 0:
		return nil
	case f.left > 0:
		f.left--
		return nil
	case f.full > 0:
		if f.full--; f.full == 0 {
			f.left = -1
		}
		return syscall.ENOSPC
	}
	f.dead = true
	return errKilled
}

// set lets writes fail after so many, for so many.
func (f *faultyFiles) set(left, full int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left, f.full = left, full
}

// closeAll closes what a killed process would not have open any more.
func (f *faultyFiles) closeAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, x := range f.files {
		_ = x.Close() // may be closed already
	}
	f.files = nil
}

func (f *faultyFiles) gone() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dead
}

func (f *faultyFiles) keep(x diskFile, err error) (diskFile, error) {
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.files = append(f.files, x)
	return &faultyFile{x, f}, nil
}

func (f *faultyFiles) create(name string) (diskFile, error) {
	if err := f.step(); err != nil {
		return nil, err
	}
	return f.keep(f.osFiles.create(name))
}

func (f *faultyFiles) open(name string) (diskFile, error) { return f.keep(f.osFiles.open(name)) }

func (f *faultyFiles) rename(from, to string) error {
	if err := f.step(); err != nil {
		return err
	}
	return f.osFiles.rename(from, to)
}

func (f *faultyFiles) remove(name string) error {
	if err := f.step(); err != nil {
		return err
	}
	return f.osFiles.remove(name)
}

type faultyFile struct {
	diskFile
	files *faultyFiles
}

// WriteAt writes half of what it fails to write.
func (f *faultyFile) WriteAt(b []byte, at int64) (int, error) {
	first := !f.files.gone() // a process that is dead writes no more
	if err := f.files.step(); err != nil {
		n := 0
		if first {
			n, _ = f.diskFile.WriteAt(b[:len(b)/2], at)
		}
		return n, err
	}
	return f.diskFile.WriteAt(b, at)
}

func (f *faultyFile) Truncate(size int64) error {
	if err := f.files.step(); err != nil {
		return err
	}
	return f.diskFile.Truncate(size)
}

// Sync only counts: the data is in the page cache, which outlives a process.
func (f *faultyFile) Sync() error { return f.files.step() }
