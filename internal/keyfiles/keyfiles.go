// Package keyfiles reads files of certificates, keys and tokens again when they change.
package keyfiles

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// largest bounds the size of a file, in octets.
const largest = 1 << 20

// File is a file as it was read.
type File struct {
	Path string
	Data []byte
	Err  error // of reading it
}

// Set is some files that are used together or not at all, such as a certificate
// and its key. Its methods must not be called concurrently.
type Set struct {
	paths   []string
	use     func([]File) error
	inUse   contents
	seen    contents // at the last Look
	refused contents // that use refused last
}

// contents tells whether files have changed.
type contents [sha256.Size]byte

// Open reads the files and uses them. The error is that of use.
func Open(use func([]File) error, paths ...string) (*Set, error) {
	s := &Set{paths: paths, use: use}
	files, now := s.read()
	s.inUse, s.seen = now, now
	return s, use(files)
}

// Look reads the files, and uses contents that differ from those in use once
// two Looks in succession have found the same: a file that is being written is
// left alone. It returns an error once for contents that cannot be used, while
// the earlier ones stay in use.
func (s *Set) Look() (changed bool, err error) {
	files, now := s.read()
	settled := now == s.seen
	s.seen = now
	switch {
	case now == s.inUse:
		s.refused = contents{}
		return false, nil
	case !settled, now == s.refused:
		return false, nil
	}
	if err := s.use(files); err != nil {
		s.refused = now
		return false, err
	}
	s.inUse, s.refused = now, contents{}
	return true, nil
}

// Refused reports whether the contents that were looked at last, of those that had settled,
// cannot be used.
func (s *Set) Refused() bool { return s.refused != contents{} }

// String names the files.
func (s *Set) String() string { return strings.Join(s.paths, ", ") }

func (s *Set) read() ([]File, contents) {
	files, sum := make([]File, len(s.paths)), sha256.New()
	for i, path := range s.paths {
		data, err := readFile(path)
		files[i] = File{Path: path, Data: data, Err: err}
		fmt.Fprintf(sum, "%d %v %d ", i, err, len(data))
		_, _ = sum.Write(data)
	}
	return files, contents(sum.Sum(nil))
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, largest+1))
	if err == nil && len(data) > largest {
		data, err = nil, fmt.Errorf("%s has more than %d octets", path, largest)
	}
	return data, errors.Join(err, f.Close())
}
