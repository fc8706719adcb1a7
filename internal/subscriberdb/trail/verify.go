package trail

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/audit"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
)

// verifyTries bounds the walks through a trail of which retention removes entries meanwhile.
const verifyTries = 3

// Verify checks one trail, up to the entry that is the last one now.
func (s *Store) Verify(ctx context.Context, trail string) (audit.Verified, error) {
	for try := 1; ; try++ {
		v, removed, err := s.verifyOnce(ctx, trail)
		if redisconn.IsWrongType(err) { // the others are to be checked all the same
			why := fmt.Sprintf("%s, or its head, is a key of another type", codec.AuditKey(trail))
			return audit.Verified{Trail: trail, Flaw: &audit.Flaw{Number: 1, Kind: audit.Truncated, Detail: why}}, nil
		}
		if err != nil {
			return audit.Verified{}, fmt.Errorf("verify %s: %w", codec.AuditKey(trail), err)
		}
		if v.Flaw == nil || try == verifyTries {
			return v, nil
		}
		if now, err := s.readEnds(ctx, trail); err != nil || now.removed == removed {
			return v, err
		}
	}
}

func (s *Store) readEnds(ctx context.Context, trail string) (ends, error) {
	fields, err := s.o.Client.HGetAll(ctx, codec.AuditHeadKey(trail)).Result()
	return parseEnds(fields), err
}

// verifyOnce walks through a trail once. The first entries are read in one step with the ends.
func (s *Store) verifyOnce(ctx context.Context, trail string) (v audit.Verified, removed audit.Head, err error) {
	ends, batch, err := s.readFirst(ctx, trail)
	if err != nil {
		return v, removed, err
	}
	check := audit.NewVerifier(trail, ends.removed)
	v = audit.Verified{Trail: trail, Last: ends.last}
	for len(batch) > 0 {
		for _, x := range batch {
			if ends.known && check.Checked() >= ends.last.Number {
				v.Flaw = check.End(ends.last, ends.known)
				now, err := s.readEnds(ctx, trail) // has all entries of the batch, as it is read later
				if v.Flaw == nil && now.last.Number <= ends.last.Number {
					why := fmt.Sprintf("it stands behind the last entry, %d", ends.last.Number)
					v.Flaw = &audit.Flaw{Number: ends.last.Number + 1, Kind: audit.Changed, Detail: why}
				}
				return counted(v, check, ends.removed), ends.removed, err
			}
			if !check.Check(x.Text, x.Hash) {
				v.Flaw = check.End(ends.last, ends.known)
				return counted(v, check, ends.removed), ends.removed, nil
			}
		}
		if batch, err = s.Behind(ctx, trail, batch[len(batch)-1].ID, readCount); err != nil {
			return v, removed, err
		}
	}
	v.Flaw = check.End(ends.last, ends.known)
	return counted(v, check, ends.removed), ends.removed, nil
}

// readFirst reads the ends of a trail, and its first entries, in one step.
func (s *Store) readFirst(ctx context.Context, trail string) (e ends, first []audit.Stored, err error) {
	call, err := s.o.Client.Call(ctx, firstScript, []string{codec.AuditKey(trail), codec.AuditHeadKey(trail)}, readCount)
	if err != nil {
		return ends{}, nil, err
	}
	answer, err := call.Slice()
	if err != nil || len(answer) != 2 {
		return ends{}, nil, fmt.Errorf("script answered %v", call.Val())
	}
	entries, _ := answer[1].([]any)
	for _, x := range entries {
		entry, _ := x.([]any)
		if len(entry) != 2 {
			return ends{}, nil, fmt.Errorf("script answered %v", entry)
		}
		id, _ := entry[0].(string)
		fields := pairs(entry[1])
		first = append(first, audit.Stored{Place: audit.Place{ID: id, Trail: trail}, Text: fields["entry"], Hash: fields["hash"]})
	}
	return parseEnds(pairs(answer[0])), first, nil
}

// pairs returns names with values from a flat list.
func pairs(list any) map[string]string {
	values, _ := list.([]any)
	found := make(map[string]string, len(values)/2)
	for i := 0; i+1 < len(values); i += 2 {
		name, _ := values[i].(string)
		found[name], _ = values[i+1].(string)
	}
	return found
}

// firstScript reads the ends of a trail and its first entries. A transaction (MULTI) would not
// do: a Redis without free memory refuses it.
//
// KEYS: 1 the trail, 2 its head. ARGV: 1 most entries. Returns the hash of the ends, and the
// entries.
var firstScript = redis.NewScript(`
local ends = redis.pcall('HGETALL', KEYS[2])
local entries = redis.pcall('XRANGE', KEYS[1], '-', '+', 'COUNT', ARGV[1])
if ends.err or entries.err then return redis.error_reply(ends.err or entries.err) end
return {ends, entries}
`)

// counted completes the counts of a result.
func counted(v audit.Verified, check *audit.Verifier, removed audit.Head) audit.Verified {
	v.Entries = int(check.Checked() - removed.Number)
	if v.Entries > 0 {
		v.First = removed.Number + 1
	}
	return v
}
