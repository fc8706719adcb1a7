package trail

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/audit"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
)

// attempts bounds the seals of one entry, where other daemons append to the same trail.
const attempts = 32

// Options configure a Store. All are required.
type Options struct {
	Client *redisconn.Client // must have the scripts of this package, and those of its callers
	Node   string            // name of this daemon
	Trails func() []string   // the groups in force; each has a trail
	Failed func()            // called for each change that is refused, as its entry cannot be written, and for each outcome that is in no trail
	Logger *slog.Logger
	Now    func() time.Time
}

// Store appends entries to the trails, and reads them. Its methods may be called concurrently.
type Store struct {
	o Options

	mu   sync.Mutex
	ends map[string]*trailEnd
}

// trailEnd is the end of one trail. Who has its turn may append.
type trailEnd struct {
	turn  chan struct{} // holds a token while nobody has the turn
	head  audit.Head
	known bool
	named bool // its name is stored
}

// New returns a Store.
func New(o Options) *Store { return &Store{o: o, ends: map[string]*trailEnd{}} }

// end returns the end of a trail, once the caller has the turn to append.
func (s *Store) end(ctx context.Context, trail string) (*trailEnd, error) {
	s.mu.Lock()
	e := s.ends[trail]
	if e == nil {
		e = &trailEnd{turn: make(chan struct{}, 1)}
		e.turn <- struct{}{}
		s.ends[trail] = e
	}
	s.mu.Unlock()
	select {
	case <-e.turn:
		return e, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Answer is the answer of a script that was called with an entry.
type Answer struct {
	Done    any   // its own answer; nil where the entry is there, and the answer was lost
	Refused []int // the numbers of what it refused: then nothing was written, not even the entry
}

// Append calls a script, list being the command that calls its plain form, and appends the
// entry in the same step. It completes the entry's Trail, Number, Before, At and Node. Errors
// wrap audit.ErrUnwritten where Redis takes the change, but not the entry.
func (s *Store) Append(ctx context.Context, trail string, e audit.Entry, script Script, list []any) (Answer, audit.Head, error) {
	answer, head, err := s.appendTo(ctx, trail, e, script, list)
	if errors.Is(err, audit.ErrUnwritten) {
		s.o.Failed()
	}
	return answer, head, err
}

// appendTo is Append, and leaves it to the caller to count a failure.
func (s *Store) appendTo(ctx context.Context, trail string, e audit.Entry, script Script, list []any) (Answer, audit.Head, error) {
	end, err := s.end(ctx, trail)
	if err != nil {
		return Answer{}, audit.Head{}, err
	}
	defer func() { end.turn <- struct{}{} }()
	e.Trail, e.At, e.Node = trail, s.o.Now().UTC(), s.o.Node
	answer, err := s.append(ctx, end, &e, script, list)
	if err != nil {
		end.known = false
		return Answer{}, audit.Head{}, fmt.Errorf("audit trail %s: %w", codec.AuditKey(trail), err)
	}
	if order := audit.From(ctx); order != nil && len(answer.Refused) == 0 {
		order.Wrote()
	}
	return answer, end.head, nil
}

func (s *Store) append(ctx context.Context, end *trailEnd, e *audit.Entry, script Script, list []any) (Answer, error) {
	var sealed []audit.Head // of the attempts
	for range attempts {
		if !end.known {
			var err error
			if end.head, err = s.readHead(ctx, e.Trail); err != nil {
				return Answer{}, err
			}
			end.known = true
		}
		if slices.Contains(sealed, end.head) { // the client sent the call again, as its first answer was lost
			return Answer{}, nil
		}
		if !end.named || end.head == (audit.Head{}) { // its first entry, perhaps in a Redis that was emptied
			if err := s.keepName(ctx, e.Trail); err != nil {
				return Answer{}, err
			}
			end.named = true
		}
		text, next, err := audit.Seal(*e, end.head)
		if err != nil {
			return Answer{}, err
		}
		sealed = append(sealed, next)
		call := redis.NewCmd(ctx, recordedCall(script, list, e.Trail, end.head, text, next)...)
		if err := s.o.Client.Exchange(ctx, []redis.Cmder{call}); err != nil {
			if redis.HasErrorPrefix(err, "AUDIT") {
				err = fmt.Errorf("%w: %w", audit.ErrUnwritten, err)
			}
			return Answer{}, err
		}
		answer, ok := call.Val().([]any)
		if !ok || len(answer) < 2 {
			return Answer{}, fmt.Errorf("script answered %v", call.Val())
		}
		switch answer[0] {
		case int64(1):
			end.head = next
			return Answer{Done: answer[1]}, nil
		case int64(-1):
			return Answer{Refused: numbers(answer[1])}, nil
		}
		if end.head, ok = headOf(answer[2], answer[1]); !ok {
			return Answer{}, fmt.Errorf("script answered %v", call.Val())
		}
	}
	return Answer{}, errors.New("other daemons keep appending to it")
}

// recordedCall returns the call of a script with an entry, from the call without one.
func recordedCall(script Script, plain []any, trail string, head audit.Head, text string, next audit.Head) []any {
	keys, _ := plain[2].(int)
	list := make([]any, 0, len(plain)+6)
	list = append(list, "evalsha", script.recorded.Hash(), keys+2)
	list = append(list, plain[3:3+keys]...)
	list = append(list, codec.AuditKey(trail), codec.AuditHeadKey(trail))
	list = append(list, plain[3+keys:]...)
	return append(list, next.Number, head.Hash, text, next.Hash)
}

// numbers returns the numbers in a list of an answer.
func numbers(list any) []int {
	values, _ := list.([]any)
	var found []int
	for _, v := range values {
		if n, ok := v.(int64); ok {
			found = append(found, int(n))
		}
	}
	return found
}

// headOf reads a head from an answer.
func headOf(number, hash any) (audit.Head, bool) {
	digits, ok := number.(string)
	text, textOK := hash.(string)
	n, err := strconv.ParseUint(digits, 10, 64)
	return audit.Head{Number: n, Hash: text}, ok && textOK && err == nil
}

// ends is what the hash of a trail's ends has.
type ends struct {
	last    audit.Head
	known   bool       // last is known
	removed audit.Head // the last entry that retention removed
}

func parseEnds(fields map[string]string) (e ends) {
	if fields["number"] != "" {
		e.last, e.known = headOf(fields["number"], fields["hash"])
	}
	if fields["removed"] != "" {
		e.removed, _ = headOf(fields["removed"], fields["removed_hash"])
	}
	return e
}

// readHead returns the head of a trail, behind which the next entry is sealed.
func (s *Store) readHead(ctx context.Context, trail string) (audit.Head, error) {
	fields, err := s.o.Client.HGetAll(ctx, codec.AuditHeadKey(trail)).Result()
	if redisconn.IsWrongType(err) {
		return audit.Head{}, fmt.Errorf("%w: %s: %w", audit.ErrUnwritten, codec.AuditHeadKey(trail), err)
	}
	if err != nil {
		return audit.Head{}, err
	}
	return parseEnds(fields).last, nil
}

// Write executes commands on keys of one slot. If the context is for an order it appends the
// entry in the same step, to the trail.
func (s *Store) Write(ctx context.Context, trail string, entry func(*audit.Entry), keys []string, commands ...[]any) error {
	list := wordsOf(callOf(writes.plain, keys), commands)
	e, ordered, err := audit.EntryFor(ctx)
	if err != nil {
		return err
	}
	if !ordered {
		return s.o.Client.Exchange(ctx, []redis.Cmder{redis.NewCmd(ctx, list...)})
	}
	entry(&e)
	_, _, err = s.Append(ctx, trail, e, writes, list)
	return err
}

// Value is a value in Redis that commands replace.
type Value struct {
	Key   string
	Field string // of the hash; "" for a string
}

// Replace is Write for commands that replace values. The entry gets the texts that these replaced
// in the same step, nil for values that were not there, in the order of values.
func (s *Store) Replace(ctx context.Context, trail string, values []Value, entry func(e *audit.Entry, old []*string), commands ...[]any) error {
	var keys []string
	for _, v := range values {
		if !slices.Contains(keys, v.Key) {
			keys = append(keys, v.Key)
		}
	}
	if audit.From(ctx) == nil {
		return s.Write(ctx, trail, nil, keys, commands...)
	}
	for range attempts {
		old, err := s.readValues(ctx, values)
		if err != nil {
			return err
		}
		e, _, err := audit.EntryFor(ctx)
		if err != nil {
			return err
		}
		entry(&e, old)
		list := append(callOf(replaces.plain, keys), len(values))
		for i, v := range values {
			if old[i] == nil {
				list = append(list, v.Key, v.Field, 0, "")
			} else {
				list = append(list, v.Key, v.Field, 1, *old[i])
			}
		}
		answer, _, err := s.Append(ctx, trail, e, replaces, wordsOf(list, commands))
		if err != nil || len(answer.Refused) == 0 {
			return err
		}
	}
	return errors.New("others keep changing the same values; repeat it")
}

// readValues returns the texts of values, nil for those that are not there.
func (s *Store) readValues(ctx context.Context, values []Value) ([]*string, error) {
	cmds := make([]redis.Cmder, len(values))
	for i, v := range values {
		if cmds[i] = redis.NewStringCmd(ctx, "get", v.Key); v.Field != "" {
			cmds[i] = redis.NewStringCmd(ctx, "hget", v.Key, v.Field)
		}
	}
	failed := s.o.Client.Exchange(ctx, cmds)
	texts := make([]*string, len(values))
	for i, cmd := range cmds {
		if err := redisconn.Answered(cmd, failed); err != nil {
			return nil, fmt.Errorf("read %s: %w", values[i].Key, err)
		}
		if !errors.Is(cmd.Err(), redis.Nil) {
			text := cmd.(*redis.StringCmd).Val()
			texts[i] = &text
		}
	}
	return texts, nil
}

// callOf returns the begin of the call of a script.
func callOf(script *redis.Script, keys []string) []any {
	list := []any{"evalsha", script.Hash(), len(keys)}
	for _, key := range keys {
		list = append(list, key)
	}
	return list
}

// wordsOf appends commands to the call of a script: the number of words of each, and its words.
func wordsOf(list []any, commands [][]any) []any {
	for _, words := range commands {
		list = append(append(list, len(words)), words...)
	}
	return list
}
