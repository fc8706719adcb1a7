package conntrack

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/nlmsg"
)

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
