package natlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/natlog/wire"
)

const (
	chunkEvents = 512              // events of one chunk at most: what is sent and removed together
	openWithin  = 10 * time.Second // bounds the wait for another process that has the spool
)

// LeastSpool is the size of the smallest spool, in octets.
const LeastSpool = 1 << 20

// The buckets of the file, and the keys of bucket "counts".
var (
	chunksBucket    = []byte("chunks")    // number of a chunk, 8 octets: lines of JSON
	positionsBucket = []byte("positions") // group: position in its log behind the events appended
	countsBucket    = []byte("counts")

	sizeKey    = []byte("size")    // octets of all chunks
	eventsKey  = []byte("events")  // events in all chunks
	droppedKey = []byte("dropped") // events that had to make room, since the file was made
)

// spool keeps chunks of events in a file, until they are removed or have to make room.
type spool struct {
	db   *bbolt.DB
	most int64 // octets of all chunks
}

// chunk is some events that are sent together.
type chunk struct {
	number   uint64
	events   []nat.Event
	unread   uint64 // events that cannot be read, because the disk has changed them
	unreadBy error
}

// spoolCounts are the figures of a spool.
type spoolCounts struct{ size, events, dropped uint64 }

func openSpool(path string, most int64) (*spool, error) {
	if most < LeastSpool {
		return nil, fmt.Errorf("a spool of %d octets is too small; give it at least %d", most, int64(LeastSpool))
	}
	var db *bbolt.DB
	err := guarded(func() (err error) {
		db, err = bbolt.Open(path, 0o600, &bbolt.Options{Timeout: openWithin, FreelistType: bbolt.FreelistMapType})
		return err
	})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("spool %s: another process has it; two sinks or daemons cannot share a spool", path)
	}
	if err != nil {
		return nil, fmt.Errorf("spool %s: %w (move the file away to begin with an empty one)", path, err)
	}
	s := &spool{db, most}
	err = s.update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{chunksBucket, positionsBucket, countsBucket} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("spool %s: %w", path, err), db.Close())
	}
	return s, nil
}

func (s *spool) update(do func(*bbolt.Tx) error) error {
	return guarded(func() error { return s.db.Update(do) })
}

func (s *spool) view(do func(*bbolt.Tx) error) error {
	return guarded(func() error { return s.db.View(do) })
}

// guarded turns a panic into an error: bbolt panics where the disk has damaged a file, and a page
// of memory that cannot be read is a fault. Neither may take NAT and RADIUS with it.
func guarded(do func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("the spool is damaged: %v; move the file away and start again", cause)
		}
	}()
	return do()
}

func (s *spool) close() error { return s.db.Close() }

// append stores events of a group together with the position behind them. If it returns nil,
// both are on disk. The oldest chunks make room, if it is needed.
func (s *spool) append(group, position string, events []nat.Event) error {
	return s.update(func(tx *bbolt.Tx) error {
		chunks, counts := tx.Bucket(chunksBucket), countsOf(tx)
		chunks.FillPercent = 1 // chunks come in order
		for len(events) > 0 {
			n := min(len(events), chunkEvents)
			var lines []byte
			for i := range events[:n] {
				var err error
				if lines, err = wire.AppendJSON(lines, &events[i]); err != nil {
					return err
				}
			}
			events = events[n:]
			number, err := chunks.NextSequence()
			if err != nil {
				return err
			}
			if err := chunks.Put(chunkKey(number), appendCount(lines, n)); err != nil {
				return err
			}
			counts.size += uint64(len(lines) + countSize)
			counts.events += uint64(n)
		}
		if err := makeRoom(chunks, &counts, s.most); err != nil {
			return err
		}
		if err := tx.Bucket(positionsBucket).Put([]byte(group), []byte(position)); err != nil {
			return err
		}
		return counts.put(tx)
	})
}

// makeRoom removes the oldest chunks while all together are too large.
func makeRoom(chunks *bbolt.Bucket, counts *spoolCounts, most int64) error {
	cursor := chunks.Cursor()
	for counts.size > uint64(most) {
		key, value := cursor.First()
		if key == nil {
			return nil
		}
		n := chunkCount(value)
		counts.size -= uint64(len(value))
		counts.events -= n
		counts.dropped += n
		if err := chunks.Delete(key); err != nil {
			return err
		}
	}
	return nil
}

// position returns the position of a group, "" if none was stored.
func (s *spool) position(group string) (position string, err error) {
	err = s.view(func(tx *bbolt.Tx) error {
		position = string(tx.Bucket(positionsBucket).Get([]byte(group)))
		return nil
	})
	return position, err
}

// read returns chunks behind a number, oldest first, with at most so many events unless the
// first one alone has more.
func (s *spool) read(behind uint64, most int) (list []chunk, err error) {
	err = s.view(func(tx *bbolt.Tx) error {
		cursor := tx.Bucket(chunksBucket).Cursor()
		n := 0
		for key, value := cursor.Seek(chunkKey(behind + 1)); key != nil; key, value = cursor.Next() {
			n += int(chunkCount(value))
			if len(list) > 0 && n > most {
				return nil
			}
			c := chunk{number: binary.BigEndian.Uint64(key)}
			if c.events, err = parseLines(value[:max(0, len(value)-countSize)]); err != nil {
				c = chunk{number: c.number, unread: chunkCount(value), unreadBy: err}
				err = nil
			}
			list = append(list, c)
		}
		return nil
	})
	return list, err
}

// remove removes the chunks up to a number, of which so many events are lost.
func (s *spool) remove(upTo, lost uint64) error {
	return s.update(func(tx *bbolt.Tx) error {
		chunks, counts := tx.Bucket(chunksBucket), countsOf(tx)
		cursor := chunks.Cursor()
		for key, value := cursor.First(); key != nil && binary.BigEndian.Uint64(key) <= upTo; key, value = cursor.First() {
			counts.size -= uint64(len(value))
			counts.events -= chunkCount(value)
			if err := chunks.Delete(key); err != nil {
				return err
			}
		}
		counts.dropped += lost
		return counts.put(tx)
	})
}

func (s *spool) counts() (c spoolCounts, err error) {
	err = s.view(func(tx *bbolt.Tx) error {
		c = countsOf(tx)
		return nil
	})
	return c, err
}

func parseLines(lines []byte) (events []nat.Event, err error) {
	for len(lines) > 0 {
		end := 0
		for end < len(lines) && lines[end] != '\n' {
			end++
		}
		e, err := wire.ParseJSON(lines[:end])
		if err != nil {
			return nil, err
		}
		events = append(events, e)
		lines = lines[min(end+1, len(lines)):]
	}
	return events, nil
}

func chunkKey(number uint64) []byte { return binary.BigEndian.AppendUint64(nil, number) }

// countSize is the size of the number of events behind the lines of a chunk.
const countSize = 2

func appendCount(lines []byte, n int) []byte { return binary.BigEndian.AppendUint16(lines, uint16(n)) }

func chunkCount(value []byte) uint64 {
	if len(value) < countSize {
		return 0
	}
	return uint64(binary.BigEndian.Uint16(value[len(value)-countSize:]))
}

func countsOf(tx *bbolt.Tx) spoolCounts {
	b := tx.Bucket(countsBucket)
	get := func(key []byte) uint64 {
		if v := b.Get(key); len(v) == 8 {
			return binary.BigEndian.Uint64(v)
		}
		return 0
	}
	return spoolCounts{get(sizeKey), get(eventsKey), get(droppedKey)}
}

func (c *spoolCounts) put(tx *bbolt.Tx) error {
	b := tx.Bucket(countsBucket)
	for _, x := range []struct {
		key   []byte
		value uint64
	}{{sizeKey, c.size}, {eventsKey, c.events}, {droppedKey, c.dropped}} {
		if err := b.Put(x.key, binary.BigEndian.AppendUint64(nil, x.value)); err != nil {
			return err
		}
	}
	return nil
}
