package bindings

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
)

// Row is a binding as stored in Redis.
type Row struct {
	nat.Place

	of          *rowSource
	field, text string
}

// rowSource is the group of rows, and the log for unreadable ones.
type rowSource struct {
	logger *slog.Logger
	group  string
}

// Options configure a Store. All but Log are required.
type Options struct {
	Client *redisconn.Client // must have the scripts of this package, see Scripts
	Groups func() []string   // the groups in force
	Log    bool              // the NAT of the groups is logged
	Logger *slog.Logger
	Now    func() time.Time
}

// A Store reads and writes the bindings of all groups, and the logs of their NAT. Its methods
// may be called concurrently.
type Store struct {
	o      Options
	client *redisconn.Client
	logger *slog.Logger
	moved  sync.Map // by name, the groups whose old key was found to be gone
	ended  sync.Map // by name, the groups whose log has been ended
	logs   logStates
}

// New returns a Store.
func New(o Options) *Store { return &Store{o: o, client: o.Client, logger: o.Logger} }

// Scripts returns the scripts that a server has to load.
func Scripts() []*redis.Script {
	return []*redis.Script{moveScript, logScript, wholeScript, trimScript}
}

// BindingRows yields the stored bindings of a group in batches, in no order, for a reader
// that has most of them already. A binding that is written meanwhile may be missed or
// yielded twice. An unreadable one is logged and left out: it must not prevent a daemon
// from starting. An error of yield ends the scan.
func (s *Store) BindingRows(ctx context.Context, group string, yield func([]Row) error) error {
	return redisconn.ReadAhead(ctx, func(ctx context.Context, emit func([]Row) error) error {
		return s.scanBindings(ctx, group, emit)
	}, yield)
}

func (s *Store) scanBindings(ctx context.Context, group string, yield func([]Row) error) error {
	old := false // whether the old key exists
	err := s.client.ScanHash(ctx, codec.OldBindingsKey(group), func(fields []string) error {
		if !old {
			old = true
			s.moved.Delete(group) // the next write moves the bindings: an old backup was restored
		}
		return s.yieldRows(group, fields, yield)
	})
	if err != nil {
		return err
	}
	parts, err := s.filledParts(ctx, group) // after the old key: bindings moved meanwhile are found here
	if err != nil {
		return err
	}
	for _, part := range parts {
		err := s.client.ScanHash(ctx, codec.BindingsKey(group, part), func(fields []string) error {
			if old {
				var err error
				if fields, err = s.withoutOld(ctx, group, fields); err != nil {
					return err
				}
			}
			return s.yieldRows(group, fields, yield)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// filledParts returns the parts that have bindings.
func (s *Store) filledParts(ctx context.Context, group string) ([]uint8, error) {
	calls := make([]redis.Cmder, codec.BindingParts)
	for i := range calls {
		calls[i] = redis.NewIntCmd(ctx, "hlen", codec.BindingsKey(group, uint8(i)))
	}
	if err := redisconn.Pipeline(ctx, s.client, calls); err != nil {
		return nil, fmt.Errorf("count bindings of group %q: %w", group, err)
	}
	var parts []uint8
	for i := range calls {
		if calls[i].(*redis.IntCmd).Val() > 0 {
			parts = append(parts, uint8(i))
		}
	}
	return parts, nil
}

func (s *Store) yieldRows(group string, fields []string, yield func([]Row) error) error {
	of := &rowSource{s.logger, group}
	rows := make([]Row, 0, len(fields)/2)
	for i := 0; i+1 < len(fields); i += 2 {
		row := Row{of: of, field: fields[i], text: fields[i+1]}
		var err error
		if row.Place, err = codec.ParsePlace(row.field); err != nil {
			row.unreadable(err)
			continue
		}
		rows = append(rows, row)
	}
	if len(rows) == 0 {
		return nil
	}
	return yield(rows)
}

// BindingRowsAt returns the stored bindings of some blocks of a group, in the order given;
// the row of a block without one is empty, and so not Stored.
func (s *Store) BindingRowsAt(ctx context.Context, group string, blocks []nat.Place) ([]Row, error) {
	of := &rowSource{s.logger, group}
	rows := make([]Row, len(blocks))
	order := make([]*Row, len(blocks))
	for i, b := range blocks {
		rows[i] = Row{Place: b, of: of, field: codec.FormatPlace(b)}
		order[i] = &rows[i]
	}
	slices.SortStableFunc(order, func(a, b *Row) int {
		return cmp.Compare(codec.BindingPart(a.Outside), codec.BindingPart(b.Outside))
	})
	for chunk := range slices.Chunk(order, redisconn.PipelineLimit) {
		old, err := s.fillRows(ctx, group, chunk, false)
		if err == nil && old {
			s.moved.Delete(group) // the next write moves the bindings: an old backup was restored
			_, err = s.fillRows(ctx, group, chunk, true)
		}
		if err != nil {
			return nil, fmt.Errorf("read bindings of group %q: %w", group, err)
		}
	}
	return rows, nil
}

// fillRows reads the rows, which are in the order of their parts, and reports whether the
// old key exists. It reads the old key before the parts: bindings moved meanwhile are then
// found in one of them.
func (s *Store) fillRows(ctx context.Context, group string, rows []*Row, withOld bool) (old bool, err error) {
	exists := redis.NewIntCmd(ctx, "exists", codec.OldBindingsKey(group))
	calls := []redis.Cmder{exists}
	ask := func(key string, rows []*Row) *redis.SliceCmd {
		args := append(make([]any, 0, 2+len(rows)), "hmget", key)
		for _, r := range rows {
			args = append(args, &r.field)
		}
		cmd := redis.NewSliceCmd(ctx, args...)
		calls = append(calls, cmd)
		return cmd
	}
	var before, now []*redis.SliceCmd
	if withOld {
		before = append(before, ask(codec.OldBindingsKey(group), rows))
	}
	for from := 0; from < len(rows); {
		part, to := codec.BindingPart(rows[from].Outside), from+1
		for to < len(rows) && codec.BindingPart(rows[to].Outside) == part {
			to++
		}
		now = append(now, ask(codec.BindingsKey(group, part), rows[from:to]))
		from = to
	}
	if err := redisconn.Pipeline(ctx, s.client, calls); err != nil {
		return false, err
	}
	for _, cmds := range [][]*redis.SliceCmd{now, before} { // the value in the old key is the newer one
		left := rows
		for _, cmd := range cmds {
			for i, text := range cmd.Val() {
				if text, ok := text.(string); ok {
					left[i].text = text
				}
			}
			left = left[len(cmd.Val()):]
		}
	}
	return exists.Val() > 0, nil
}

// Stored reports whether the block has a stored binding.
func (r *Row) Stored() bool { return r.text != "" }

// Is reports whether the row is equal to the stored form of the binding.
func (r *Row) Is(b *nat.Binding) bool {
	var room [512]byte
	return r.Place == b.Place() && r.text == string(codec.AppendBinding(room[:0], b))
}

// Binding parses the row; an unreadable one is logged.
func (r *Row) Binding() (nat.Binding, bool) {
	b, err := codec.ParseBinding(r.of.group, r.field, r.text)
	if err != nil {
		r.unreadable(err)
	}
	return b, err == nil
}

func (r *Row) unreadable(err error) {
	r.of.logger.Error("stored binding cannot be read", "group", r.of.group, "error", err)
}

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
