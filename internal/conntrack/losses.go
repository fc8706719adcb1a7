package conntrack

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/sessiond/sessiond/internal/nlmsg"
	"golang.org/x/sys/unix"
)

// Losses count packets of the namespace that conntrack dropped, of any address, since the
// namespace began.
type Losses struct {
	Refused uint64 // the flow could not be entered: its tuple was taken, as with no free port left
	Full    uint64 // the table had no room for the flow
}

// Attributes of the statistics of one processor, enum ctattr_stats_cpu.
const (
	attrInsertFailed = 9
	attrDrop         = 10
	attrTooLong      = 15 // CTA_STATS_CHAIN_TOOLONG, since Linux 5.15
)

// processorLosses are the counts of one processor.
type processorLosses struct{ insertFailed, drop, tooLong uint64 }

// losses separates the counts: conntrack counts a taken tuple in both of the first two, a full
// table in drop alone, and a hash chain that is too long not in drop.
func (p processorLosses) losses() Losses {
	clashed := p.insertFailed - min(p.insertFailed, p.tooLong)
	return Losses{Refused: p.insertFailed, Full: p.drop - min(p.drop, clashed)}
}

// Losses reads the packets that conntrack dropped.
func (t *Table) Losses(ctx context.Context) (Losses, error) {
	var sum processorLosses
	err := t.pool.with(ctx, func(c *conn) error {
		c.seq++
		c.out = appendRequest(c.out[:0], typeCPUs, unix.NLM_F_DUMP, c.seq)
		if err := nlmsg.Send(c.raw, c.out); err != nil {
			return err
		}
		for {
			b, err := c.receive()
			if err != nil {
				return err
			}
			done, err := sum.parse(b, c.seq)
			if done || err != nil {
				return err
			}
		}
	})
	if err != nil {
		return Losses{}, fmt.Errorf("read the packets that conntrack dropped: %w", err)
	}
	return sum.losses(), nil
}

// parse adds the processors in one datagram of the answer numbered seq.
func (p *processorLosses) parse(b []byte, seq uint32) (done bool, err error) {
	for len(b) > 0 {
		m, rest, ok := nlmsg.Next(b)
		if !ok {
			return false, errMalformed
		}
		b = rest
		switch {
		case m.Seq != seq:
		case m.Type == unix.NLMSG_DONE || m.Type == unix.NLMSG_ERROR:
			return true, dumpResult(m)
		case m.Type == typeCPUs && len(m.Payload) >= nlmsg.FamilyLen:
			for typ, value := range nlmsg.Attrs(m.Payload[nlmsg.FamilyLen:]) {
				if len(value) != 4 {
					continue
				}
				switch n := uint64(binary.BigEndian.Uint32(value)); typ {
				case attrInsertFailed:
					p.insertFailed += n
				case attrDrop:
					p.drop += n
				case attrTooLong:
					p.tooLong += n
				}
			}
		}
	}
	return false, nil
}
