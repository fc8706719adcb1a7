package bindings

import (
	"bytes"
	"context"
	"net/netip"
	"slices"
	"strings"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
)

// BindingRowsInOrder is BindingRows in order of inside address, of the bindings that exist
// at the beginning. A start uses it, so that the data of a million bindings lie in memory
// in the order in which lists, comparisons and the garbage collector later walk over them.
// It holds all rows meanwhile, without a pointer in each. Unreadable rows come first.
func (s *Store) BindingRowsInOrder(ctx context.Context, group string, yield func([]Row) error) error {
	var kept rowStore
	err := s.BindingRows(ctx, group, func(rows []Row) error {
		for i := range rows {
			kept.add(&rows[i])
		}
		return nil
	})
	if err != nil {
		return err
	}
	return kept.inOrder(&rowSource{s.logger, group}, func(rows []Row) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return yield(rows)
	})
}

// rowStore holds the texts of many rows in a few allocations.
type rowStore struct {
	full   []string
	last   strings.Builder // the piece that is being filled
	places []rowPlace
}

// rowPlace is the position of the texts of a row.
type rowPlace struct {
	inside      [16]byte // as netip.Addr.As16 has it
	outside     [16]byte
	piece, from uint32
	field, text uint32 // octets of each
	first       nat.Port
}

const rowPiece = 1 << 20

func (s *rowStore) add(r *Row) {
	if n := len(r.field) + len(r.text); s.last.Len()+n > s.last.Cap() {
		s.close()
		s.last.Grow(max(rowPiece, n))
	}
	s.places = append(s.places, rowPlace{
		inside: codec.InsideOfBinding(r.text).As16(), outside: r.Outside.As16(), first: r.First,
		piece: uint32(len(s.full)), from: uint32(s.last.Len()), field: uint32(len(r.field)), text: uint32(len(r.text)),
	})
	s.last.WriteString(r.field)
	s.last.WriteString(r.text)
}

// close completes a piece.
func (s *rowStore) close() {
	if s.last.Len() > 0 {
		s.full = append(s.full, s.last.String())
		s.last = strings.Builder{}
	}
}

// inOrder yields all rows in batches.
func (s *rowStore) inOrder(of *rowSource, yield func([]Row) error) error {
	s.close()
	slices.SortFunc(s.places, func(a, b rowPlace) int { return bytes.Compare(a.inside[:], b.inside[:]) })
	rows := make([]Row, 0, redisconn.ScanCount)
	for places := range slices.Chunk(s.places, redisconn.ScanCount) {
		rows = rows[:0]
		for _, p := range places {
			texts := s.full[p.piece][p.from:][:p.field+p.text]
			rows = append(rows, Row{
				Place: nat.Place{Outside: netip.AddrFrom16(p.outside).Unmap(), First: p.first},
				of:    of, field: texts[:p.field], text: texts[p.field:],
			})
		}
		if err := yield(rows); err != nil {
			return err
		}
	}
	return nil
}
