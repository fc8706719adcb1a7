package subscriberdb

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Binding is a port block with its holder, as it is kept for the next start.
type Binding struct {
	Group         string
	Inside        netip.Addr
	Outside       netip.Addr
	First, Last   uint16 // ports, both included
	Held          bool   // in its hold: the holder is gone
	Identity      string // under which the holder gets its own block back
	UserName      string // raw octets
	AcctSessionID string // raw octets
	AllocatedAt   time.Time
	ReleasedAt    time.Time // zero unless Held
	HoldUntil     time.Time // zero unless Held
	GraceUntil    time.Time // zero unless its holder may come back to it
	Receipt       *Receipt  // of its teardown; nil unless Held
}

// Receipt is what the teardown of a binding came to, as it is kept.
type Receipt struct {
	Elements   int       `json:"elements_removed"`
	Deleted    int       `json:"sessions_deleted"`
	Proof      string    `json:"proof,omitempty"` // "index" or "table"
	CutAt      time.Time `json:"cut_at,omitzero"`
	ReapedAt   time.Time `json:"reaped_at,omitzero"`
	ReleasedAt time.Time `json:"released_at,omitzero"`
}

// Block names a binding: no two bindings share the first port of an outside
// address (I1).
type Block struct {
	Outside netip.Addr
	First   uint16
}

func (b Block) field() string { return string(b.appendField(nil)) }

func (b Block) appendField(text []byte) []byte {
	return strconv.AppendUint(append(b.Outside.AppendTo(text), ':'), uint64(b.First), 10)
}

func parseBlock(field string) (Block, error) {
	i := strings.LastIndexByte(field, ':')
	if i < 0 {
		return Block{}, fmt.Errorf("block %q: no port", field)
	}
	outside, err := netip.ParseAddr(field[:i])
	if err != nil {
		return Block{}, fmt.Errorf("block %q: %w", field, err)
	}
	first, err := strconv.ParseUint(field[i+1:], 10, 16)
	if err != nil {
		return Block{}, fmt.Errorf("block %q: %w", field, err)
	}
	return Block{outside, uint16(first)}, nil
}

// SaveBindings writes and removes bindings of a group, all in one step.
func (db *DB) SaveBindings(ctx context.Context, group string, put []Binding, remove []Block) error {
	var calls []redis.Cmder
	if len(remove) > 0 {
		calls = append(calls, redis.NewIntCmd(ctx, removeArgs(group, remove)...))
	}
	if len(put) > 0 {
		args := argLists.Get().(*argList)
		defer args.free()
		putArgs(args, group, put)
		calls = append(calls, redis.NewIntCmd(ctx, args.list...))
	}
	if err := db.together(ctx, calls); err != nil {
		return fmt.Errorf("save bindings of group %q: %w", group, err)
	}
	return nil
}

// together makes all of the calls in one step.
func (db *DB) together(ctx context.Context, calls []redis.Cmder) error {
	if len(calls) == 1 {
		return db.client.Process(ctx, calls[0])
	}
	_, err := db.client.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
		for _, c := range calls {
			_ = pipe.Process(ctx, c) // queues
		}
		return nil
	})
	return err
}

// putArgs makes the command that writes the bindings.
func putArgs(l *argList, group string, bindings []Binding) {
	l.add("hset", bindingsKey(group))
	for i := range bindings {
		b := &bindings[i]
		l.text = Block{b.Outside, b.First}.appendField(l.text)
		l.cut()
		l.text = b.appendValue(l.text)
		l.cut()
	}
}

func removeArgs(group string, blocks []Block) []any {
	args := append(make([]any, 0, 2+len(blocks)), "hdel", bindingsKey(group))
	for _, b := range blocks {
		args = append(args, b.field())
	}
	return args
}

// BindingRow is a stored binding as it stands there.
type BindingRow struct {
	Block

	db          *DB
	group       string
	field, text string
}

// BindingRows yields the stored bindings of a group in batches, unordered, for a
// reader who knows what most of them are. One that is written meanwhile may be
// missed or yielded twice. One that cannot be read is logged and left out: it must
// not keep a daemon from starting. An error of yield ends the walk.
func (db *DB) BindingRows(ctx context.Context, group string, yield func([]BindingRow) error) error {
	return db.scanHash(ctx, bindingsKey(group), func(fields []string) error {
		rows := make([]BindingRow, 0, len(fields)/2)
		for i := 0; i+1 < len(fields); i += 2 {
			row := BindingRow{db: db, group: group, field: fields[i], text: fields[i+1]}
			var err error
			if row.Block, err = parseBlock(row.field); err != nil {
				row.unreadable(err)
				continue
			}
			rows = append(rows, row)
		}
		return yield(rows)
	})
}

// Is reports whether the row is what the binding is stored as.
func (r *BindingRow) Is(b *Binding) bool {
	var room [512]byte
	return r.Block == Block{b.Outside, b.First} && r.text == string(b.appendValue(room[:0]))
}

// Binding reads the row; what cannot be read is logged.
func (r *BindingRow) Binding() (Binding, bool) {
	b, err := parseBinding(r.group, r.field, r.text)
	if err != nil {
		r.unreadable(err)
	}
	return b, err == nil
}

func (r *BindingRow) unreadable(err error) {
	r.db.logger.Error("stored binding cannot be read", "group", r.group, "error", err)
}

// scanHash yields the fields of a hash in batches, name after value.
func (db *DB) scanHash(ctx context.Context, key string, yield func([]string) error) error {
	for cursor := uint64(0); ; {
		fields, next, err := db.client.HScan(ctx, key, cursor, "", scanCount).Result()
		if err != nil {
			return fmt.Errorf("scan %s: %w", key, err)
		}
		if len(fields) > 0 {
			if err := yield(fields); err != nil {
				return err
			}
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}
