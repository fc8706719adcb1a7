package conntrack

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/sessiond/sessiond/internal/nlmsg"
	"golang.org/x/sys/unix"
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

// dump asks for every IPv4 entry and calls fn with those of each datagram. The slice is
// reused, so fn must not keep it.
func (c *conn) dump(fn func([]flow) error) error {
	c.seq++
	c.out = appendRequest(c.out[:0], typeGet, unix.NLM_F_DUMP, c.seq)
	if err := nlmsg.Send(c.raw, c.out); err != nil {
		return err
	}
	var flows []flow
	for {
		b, err := c.receive()
		if err != nil {
			return err
		}
		flows = flows[:0]
		flows, done, err := parseDump(flows, b, c.seq)
		if err != nil {
			return err
		}
		if len(flows) > 0 {
			if err := fn(flows); err != nil {
				return err
			}
		}
		if done {
			return nil
		}
	}
}

// parseDump appends the entries in one datagram of the dump numbered seq.
func parseDump(to []flow, b []byte, seq uint32) (flows []flow, done bool, err error) {
	for len(b) > 0 {
		m, rest, ok := nlmsg.Next(b)
		if !ok {
			return nil, false, errMalformed
		}
		b = rest
		switch {
		case m.Seq != seq:
		case m.Type == unix.NLMSG_DONE || m.Type == unix.NLMSG_ERROR:
			return to, true, dumpResult(m)
		case m.Type == typeNew:
			to = append(to, flow{})
			ok, err := to[len(to)-1].parse(m.Payload)
			if err != nil {
				return nil, false, err
			}
			if !ok {
				to = to[:len(to)-1]
			}
		}
	}
	return to, false, nil
}

func dumpResult(m nlmsg.Message) error {
	code, err := errno(m)
	if err != nil || code == 0 {
		return err
	}
	return fmt.Errorf("dump conntrack: %w", code)
}

// Attributes of the answer to a request for statistics.
const (
	attrGlobalEntries    = 1 // CTA_STATS_GLOBAL_ENTRIES
	attrGlobalMaxEntries = 2 // CTA_STATS_GLOBAL_MAX_ENTRIES
)

// Fill returns the number of entries in the namespace, of any address, and its limit
// (sysctl nf_conntrack_max): at the limit the kernel drops packets that would begin an
// entry. limit is 0 where the kernel does not report it (before Linux 4.18).
func (t *Table) Fill(ctx context.Context) (entries, limit int, err error) {
	err = t.pool.with(ctx, func(c *conn) error {
		c.seq++
		c.out = appendRequest(c.out[:0], typeStats, unix.NLM_F_ACK, c.seq)
		if err := nlmsg.Send(c.raw, c.out); err != nil {
			return err
		}
		for {
			b, err := c.receive()
			if err != nil {
				return err
			}
			done, err := c.fill(b, &entries, &limit)
			if done || err != nil {
				return err
			}
		}
	})
	if err != nil {
		return 0, 0, fmt.Errorf("read how full the conntrack table is: %w", err)
	}
	return entries, limit, nil
}

// fill reads one datagram of the answer.
func (c *conn) fill(b []byte, entries, limit *int) (done bool, err error) {
	for len(b) > 0 {
		m, rest, ok := nlmsg.Next(b)
		if !ok {
			return false, errMalformed
		}
		b = rest
		switch {
		case m.Seq != c.seq:
		case m.Type == unix.NLMSG_ERROR:
			code, err := errno(m)
			if err == nil && code != 0 {
				err = code
			}
			return true, err
		case m.Type == typeStats && len(m.Payload) >= nlmsg.FamilyLen:
			for typ, value := range nlmsg.Attrs(m.Payload[nlmsg.FamilyLen:]) {
				if len(value) != 4 {
					continue
				}
				switch typ {
				case attrGlobalEntries:
					*entries = int(binary.BigEndian.Uint32(value))
				case attrGlobalMaxEntries:
					*limit = int(binary.BigEndian.Uint32(value))
				}
			}
		}
	}
	return false, nil
}
