package history

import (
	"errors"
	"math/rand/v2"
	"os"
	"sync"
	"syscall"
)

var errKilled = errors.New("killed")

// faultyFiles is a file system that fails: from one change on for ever, as for a process that is
// killed within it, or for some changes, as a full disk or one with errors.
type faultyFiles struct {
	osFiles

	mu    sync.Mutex
	rnd   *rand.Rand
	left  int // changes until it fails; negative: it does not
	full  int // changes that then fail; 0: all
	dead  bool
	files []diskFile
}

// step counts a change. Where it fails, done tells whether it is done nevertheless.
func (f *faultyFiles) step() (done bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.dead:
		return false, errKilled
	case f.left < 0:
		return true, nil
	case f.left > 0:
		f.left--
		return true, nil
	}
	done = f.rnd.IntN(2) == 0
	if f.full == 0 {
		f.dead = true
		return done, errKilled
	}
	if f.full--; f.full == 0 {
		f.left = -1
	}
	if done {
		return true, syscall.EIO
	}
	return false, syscall.ENOSPC
}

// set lets changes fail after so many, for so many.
func (f *faultyFiles) set(left, full int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left, f.full = left, full
}

// intact reports whether nothing has failed since set.
func (f *faultyFiles) intact() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.dead && f.left >= 0
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
	if _, err := f.step(); err != nil {
		return nil, err
	}
	return f.keep(f.osFiles.create(name))
}

func (f *faultyFiles) open(name string) (diskFile, error) { return f.keep(f.osFiles.open(name)) }

// rename leaves out the sync of the folder: its data is in the page cache, which outlives a process.
func (f *faultyFiles) rename(from, to string) error {
	return f.change(func() error { return os.Rename(from, to) })
}

func (f *faultyFiles) remove(name string) error {
	return f.change(func() error { return f.osFiles.remove(name) })
}

func (f *faultyFiles) change(do func() error) error {
	done, err := f.step()
	if done {
		err = errors.Join(err, do())
	}
	return err
}

type faultyFile struct {
	diskFile
	files *faultyFiles
}

// WriteAt writes a part, up to all, of what it fails to write.
func (f *faultyFile) WriteAt(b []byte, at int64) (int, error) {
	done, err := f.files.step()
	switch {
	case err == nil:
		return f.diskFile.WriteAt(b, at)
	case !done:
		return 0, err
	}
	n, _ := f.diskFile.WriteAt(b[:f.files.rnd.IntN(len(b)+1)], at)
	return n, err
}

func (f *faultyFile) Truncate(size int64) error {
	return f.files.change(func() error { return f.diskFile.Truncate(size) })
}

// Sync only counts, as the page cache outlives a process.
func (f *faultyFile) Sync() error {
	_, err := f.files.step()
	return err
}
