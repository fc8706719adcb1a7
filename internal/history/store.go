package history

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Options are the options of a Store.
type Options struct {
	// Path is the folder of the store, which is made if it is not there. Required.
	Path string
	// Key signs checkpoints. Required.
	Key *Key
	// MaxAge is the time for which a record is kept behind its release; 0: for ever. Whole
	// files are removed, so it is kept for up to a day longer.
	MaxAge time.Duration
	// MaxOctets bounds the size of the files of days; 0: no bound. The oldest are removed.
	MaxOctets int64
	// FileRecords is the number of allocations and releases after which a file is completed
	// before its day ends, so that a start reads no more than that; 0: 2,000,000.
	FileRecords int

	files diskFiles
}

const defaultFileRecords = 2_000_000

// jitter is the time by which an event may be earlier than one before it in its log: the
// writers of a group's log look at the clock one after the other, and write in another order.
const jitter = microTime(time.Second / time.Microsecond)

// clockStep is the time by which an event may be earlier than Batch.Through: the reader and the
// writers of a log can be on machines whose clocks differ, and a change can be told late.
const clockStep = microTime(time.Minute / time.Microsecond)

// Store is the history of some groups, each with a log of its own. Its methods may be called
// concurrently.
type Store struct {
	o    Options
	lock *os.File
	wake chan struct{} // a file was completed

	mu     sync.RWMutex // of the map
	groups map[string]*groupLog

	housework sync.Mutex // held while files are sealed, rewritten, removed or copied
}

// ErrLocked: another process has the store open.
var ErrLocked = errors.New("another process has it open")

// Open opens a store, or makes a new one. It reads the journals of running days, at most
// Options.FileRecords of each group; files of days are read when they are asked for.
func Open(o Options) (*Store, error) {
	switch {
	case o.Path == "":
		return nil, errors.New("history: Options.Path is missing")
	case o.Key == nil:
		return nil, errors.New("history: Options.Key is missing")
	case o.MaxAge < 0 || o.MaxOctets < 0 || o.FileRecords < 0:
		return nil, errors.New("history: MaxAge, MaxOctets and FileRecords cannot be negative")
	}
	if o.FileRecords == 0 {
		o.FileRecords = defaultFileRecords
	}
	if o.files == nil {
		o.files = osFiles{}
	}
	s := &Store{o: o, wake: make(chan struct{}, 1), groups: map[string]*groupLog{}}
	if err := s.open(); err != nil {
		_ = s.Close() // the error of open says more
		return nil, fmt.Errorf("history: %w", err)
	}
	return s, nil
}

func (s *Store) open() error {
	if err := s.o.files.mkdir(s.o.Path); err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(s.o.Path, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	s.lock = lock
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("%s: %w", s.o.Path, ErrLocked)
	}
	entries, err := os.ReadDir(s.o.Path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		name, err := url.PathUnescape(e.Name())
		if err != nil {
			return fmt.Errorf("%s is no folder of a group", filepath.Join(s.o.Path, e.Name()))
		}
		l := s.newLog(name)
		if err := l.load(); err != nil {
			return err
		}
		if len(l.segments) > 0 {
			s.groups[name] = l
		}
	}
	return nil
}

// Close closes the store. Everything that Append was told is durable already.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, l := range s.groups {
		errs = append(errs, l.close())
	}
	clear(s.groups)
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
		s.lock = nil
	}
	return errors.Join(errs...)
}

// Groups returns the groups that have a history, in their order.
func (s *Store) Groups() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	names := make([]string, 0, len(s.groups))
	for name := range s.groups {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// log returns the log of a group, nil for none.
func (s *Store) log(group string) *groupLog {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.groups[group]
}

// logs returns the logs of a group, or of all for "".
func (s *Store) logs(group string) []*groupLog {
	var list []*groupLog
	for _, name := range s.Groups() {
		if l := s.log(name); l != nil && (group == "" || group == name) {
			list = append(list, l)
		}
	}
	return list
}

// Octets returns the size of all files.
func (s *Store) Octets() (total int64, err error) {
	for _, l := range s.logs("") {
		n, err := l.octetsOfDays()
		if err != nil {
			return 0, err
		}
		_, sizes := l.files()
		for _, size := range sizes { // 0 of a day's file
			n += size
		}
		total += n
	}
	return total, nil
}

// newLog returns the log of a group, with nothing in it.
func (s *Store) newLog(group string) *groupLog {
	// "." and ".." are folders of their own, and PathEscape lets them through.
	name := url.PathEscape(group)
	if name == "." || name == ".." {
		name = "%2E" + name[1:]
	}
	return &groupLog{group: group, dir: filepath.Join(s.o.Path, name), o: &s.o, wake: s.wake}
}

// Progress is the place to which the log of a group was read.
type Progress struct {
	Epoch    string    // of the database
	Position string    // of the last entry that is stored
	Through  time.Time // everything until then is stored
	Gaps     []Gap     // that are known, as they came, then the times of files that are missing
	First    time.Time // the history begins
}

// Progress returns how far a group's log was read. ok is false without a history of the
// group: Resume begins one.
func (s *Store) Progress(group string) (p Progress, ok bool) {
	l := s.log(group)
	if l == nil {
		return p, false
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	if len(l.segments) == 0 {
		return p, false // closed
	}
	return Progress{
		Epoch: l.epoch, Position: l.position, Through: l.through.time(),
		Gaps: append(slices.Clone(l.gaps), l.missingFiles()...), First: l.segments[0].from.time(),
	}, true
}

// missingFiles returns the times of files that are not there.
func (l *groupLog) missingFiles() (gaps []Gap) {
	for i := 1; i < len(l.segments); i++ {
		before, behind := l.segments[i-1], l.segments[i]
		if behind.number == before.number+1 {
			continue
		}
		from, err := l.endOf(i - 1)
		if err != nil || before.day == nil {
			from = before.from // its end is not known
		}
		gaps = append(gaps, l.gap(from, behind.from, fmt.Sprintf("the file behind %s is missing", before.file())))
	}
	return gaps
}
