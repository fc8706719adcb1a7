package subscriberdb

import (
	"context"
	"encoding/json"
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
}

// Block names a binding: no two bindings share the first port of an outside
// address (I1).
type Block struct {
	Outside netip.Addr
	First   uint16
}

func (b Block) field() string { return b.Outside.String() + ":" + strconv.Itoa(int(b.First)) }

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

// bindingValue is the value of a binding's field: JSON for people, too.
type bindingValue struct {
	Inside        netip.Addr `json:"inside"`
	Last          uint16     `json:"last"`
	Held          bool       `json:"held,omitempty"`
	Identity      octets     `json:"identity,omitzero"`
	UserName      octets     `json:"user_name,omitzero"`
	AcctSessionID octets     `json:"acct_session_id,omitzero"`
	AllocatedAt   time.Time  `json:"allocated_at,omitzero"`
	ReleasedAt    time.Time  `json:"released_at,omitzero"`
	HoldUntil     time.Time  `json:"hold_until,omitzero"`
}

func (b *Binding) value() bindingValue {
	return bindingValue{
		b.Inside, b.Last, b.Held, octets(b.Identity), octets(b.UserName), octets(b.AcctSessionID),
		b.AllocatedAt.UTC(), b.ReleasedAt.UTC(), b.HoldUntil.UTC(),
	}
}

func (v *bindingValue) binding(group string, k Block) Binding {
	return Binding{
		group, v.Inside, k.Outside, k.First, v.Last, v.Held,
		string(v.Identity), string(v.UserName), string(v.AcctSessionID),
		v.AllocatedAt, v.ReleasedAt, v.HoldUntil,
	}
}

// SaveBindings writes and removes bindings of a group, all in one step.
func (db *DB) SaveBindings(ctx context.Context, group string, put []Binding, remove []Block) error {
	_, err := db.client.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
		if len(remove) > 0 {
			pipe.HDel(ctx, bindingsKey(group), blockFields(remove)...)
		}
		for i := range put {
			b := &put[i]
			text, err := json.Marshal(b.value())
			if err != nil {
				return err
			}
			pipe.HSet(ctx, bindingsKey(group), Block{b.Outside, b.First}.field(), text)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("save bindings of group %q: %w", group, err)
	}
	return nil
}

func blockFields(blocks []Block) []string {
	fields := make([]string, len(blocks))
	for i, b := range blocks {
		fields[i] = b.field()
	}
	return fields
}

// Bindings yields the stored bindings of a group in batches, unordered. One that
// is written meanwhile may be missed or yielded twice. One that cannot be read
// is logged and left out: it must not keep a daemon from starting. An error of
// yield ends the walk.
func (db *DB) Bindings(ctx context.Context, group string, yield func([]Binding) error) error {
	return db.scanHash(ctx, bindingsKey(group), func(fields []string) error {
		batch := make([]Binding, 0, len(fields)/2)
		for i := 0; i+1 < len(fields); i += 2 {
			b, err := parseBinding(group, fields[i], fields[i+1])
			if err != nil {
				db.logger.Error("stored binding cannot be read", "group", group, "error", err)
				continue
			}
			batch = append(batch, b)
		}
		return yield(batch)
	})
}

func parseBinding(group, field, text string) (Binding, error) {
	block, err := parseBlock(field)
	if err != nil {
		return Binding{}, err
	}
	var v bindingValue
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		return Binding{}, fmt.Errorf("binding %s: %w", field, err)
	}
	return v.binding(group, block), nil
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
