package conntrack

import (
	"context"
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/nlmsg"
)

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
