package conntrack

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/nlmsg"
)

// Requests in one datagram. The answer to each is charged to the socket's receive buffer:
// under 1 KiB for an error, nearly 5 KiB for an entry.
const (
	deletesPerBatch = 512
	probesPerBatch  = 256
)

// delete deletes targets, deletesPerBatch at most. It returns the deleted entries, the
// entries that were gone before, and the last other error code of the kernel.
func (c *conn) delete(targets []entryRef) (deleted, gone []entryRef, refused unix.Errno, err error) {
	codes, err := c.batch(typeDelete, targets, func(int, *flow) {})
	if err != nil {
		return nil, nil, 0, fmt.Errorf("delete conntrack entries: %w", err)
	}
	for i, code := range codes {
		switch code {
		case 0:
			deleted = append(deleted, targets[i])
		case unix.ENOENT:
			gone = append(gone, targets[i])
		default:
			refused = code
		}
	}
	return deleted, gone, refused, nil
}

// probe asks for all targets and returns those that the kernel no longer has. The request
// also makes the kernel drop an entry that has timed out.
func (c *conn) probe(targets []entryRef) (gone []entryRef, err error) {
	for len(targets) > 0 {
		part := targets[:min(len(targets), probesPerBatch)]
		targets = targets[len(part):]
		other := make([]bool, len(part))
		codes, err := c.batch(typeGet, part, func(i int, f *flow) { other[i] = f.id != part[i].id })
		if err != nil {
			return gone, err
		}
		for i, code := range codes {
			if code == unix.ENOENT || other[i] {
				gone = append(gone, part[i])
			} else if code != 0 {
				return gone, code
			}
		}
	}
	return gone, nil
}

// get asks for targets and calls fn with those that the kernel has. It returns the first
// error of fn.
func (c *conn) get(targets []entryRef, fn func(*flow) error) error {
	for len(targets) > 0 {
		part := targets[:min(len(targets), probesPerBatch)]
		targets = targets[len(part):]
		var failed error
		_, err := c.batch(typeGet, part, func(i int, f *flow) {
			if failed == nil && f.id == part[i].id {
				failed = fn(f)
			}
		})
		if err = errors.Join(err, failed); err != nil {
			return err
		}
	}
	return nil
}

// batch sends one request for each target in one datagram and returns a code for each. The
// kernel answers in order and reports errors without being asked, so only the last request
// asks for an acknowledgement: requests without an error by then succeeded.
func (c *conn) batch(kind uint16, targets []entryRef, found func(int, *flow)) ([]unix.Errno, error) {
	base := c.seq + 1
	c.out = c.out[:0]
	for i := range targets {
		flags := uint16(0)
		if i == len(targets)-1 {
			flags = unix.NLM_F_ACK
		}
		c.seq++
		c.out = appendByTuple(c.out, kind, flags, c.seq, targets[i].key, targets[i].id)
	}
	if err := nlmsg.Send(c.raw, c.out); err != nil {
		return nil, err
	}
	codes := make([]unix.Errno, len(targets))
	for {
		b, err := c.receive()
		if err != nil {
			return nil, err
		}
		done, err := answers(b, base, codes, found)
		if done || err != nil {
			return codes, err
		}
	}
}

// answers reads one datagram of answers to requests numbered from base on.
func answers(b []byte, base uint32, codes []unix.Errno, found func(int, *flow)) (done bool, err error) {
	for len(b) > 0 {
		m, rest, ok := nlmsg.Next(b)
		if !ok {
			return false, errMalformed
		}
		b = rest
		i := m.Seq - base
		if i >= uint32(len(codes)) {
			continue
		}
		switch m.Type {
		case unix.NLMSG_ERROR:
			if codes[i], err = errno(m); err != nil {
				return false, err
			}
			done = i == uint32(len(codes)-1)
		case typeNew:
			var f flow
			if _, err := f.parse(m.Payload); err != nil {
				return false, err
			}
			found(int(i), &f)
		}
	}
	return done, nil
}
