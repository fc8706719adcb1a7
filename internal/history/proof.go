package history

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/sessiond/sessiond/internal/addrrange"
	"github.com/sessiond/sessiond/internal/nat"
)

// ErrRunning: the file of a record is not complete, so it has no checkpoint to prove it by.
var ErrRunning = errors.New("the day of the record is not complete yet")

// proofText is the proof of one record as JSON.
type proofText struct {
	Checkpoint string      `json:"checkpoint"` // the signed note of the file
	Index      int64       `json:"index"`      // of the record in its file, from 0 on
	Outside    uint32      `json:"outside"`
	First      nat.Port    `json:"first_port"`
	Last       nat.Port    `json:"last_port"`
	Allocated  microTime   `json:"allocated"` // microseconds since 1970
	Released   microTime   `json:"released"`  // the largest number: still held
	Vacant     microTime   `json:"vacant"`
	Holder     []byte      `json:"holder"` // with its salt, or its hash alone
	Path       []tlog.Hash `json:"path"`   // audit path (RFC 9162 section 2.1.3)
}

// mostOfProof bounds the octets of a proof.
const mostOfProof = 1 << 20

// Prove returns the proof that a record is in the history, as JSON, which VerifyProof verifies
// without the store. The record's file has to be complete: ErrRunning otherwise.
func (s *Store) Prove(r Record) ([]byte, error) {
	l := s.log(r.Group)
	if l == nil {
		return nil, fmt.Errorf("history: group %s: %w", r.Group, ErrNotBegun)
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, g := range l.segments {
		switch {
		case g.number != r.File:
		case g.day == nil:
			return nil, fmt.Errorf("history: group %s: %w", r.Group, ErrRunning)
		default:
			var text []byte
			err := g.day.with(func(d *dayReader) (err error) {
				text, err = d.prove(&r)
				return err
			})
			if err != nil {
				return nil, fmt.Errorf("history: group %s: %w", r.Group, err)
			}
			return text, nil
		}
	}
	return nil, fmt.Errorf("history: group %s: there is no file %d: the retention may have removed it", r.Group, r.File)
}

func (r *dayReader) prove(about *Record) ([]byte, error) {
	key, allocated := keyOf(about.Block), microsOf(about.Allocated)
	for i := r.tables[tableSpans].before(spanKey(key.outside, key.first)); i < len(r.tables[tableSpans].keys); i++ {
		b, err := r.spanBlock(i)
		if err != nil {
			return nil, err
		}
		spans := b.spans
		k := slices.IndexFunc(spans, func(s span) bool {
			return s.blockKey == key && s.allocated == allocated && s.released.time().Equal(about.Released)
		})
		if k < 0 {
			if spans[0].blockKey.compare(key) > 0 {
				break
			}
			continue
		}
		s := &spans[k]
		row, err := r.holderRow(s.ref)
		if err != nil {
			return nil, err
		}
		h, err := r.salted(&row, map[uint64]spanBlock{uint64(i): b})
		if err != nil {
			return nil, err
		}
		tree, err := r.tree(about.Group)
		if err != nil {
			return nil, err
		}
		p := proofText{
			Checkpoint: r.note, Index: int64(i*spanRows + k), Outside: s.outside, First: s.first, Last: s.last,
			Allocated: s.allocated, Released: s.released, Vacant: s.vacant, Holder: h.append(nil),
		}
		path, err := tlog.ProveRecord(int64(r.counts[tableSpans]), p.Index, tree)
		if err != nil {
			return nil, err
		}
		p.Path = path
		return json.Marshal(&p)
	}
	return nil, fmt.Errorf("%s has no such record", r.path)
}

// VerifyProof verifies a proof by the public key of the history (Key.Public), and returns its
// record. It needs no store.
func VerifyProof(text []byte, public string) (Record, error) {
	var p proofText
	if len(text) > mostOfProof {
		return Record{}, fmt.Errorf("history: a proof of %d octets is none", len(text))
	}
	if err := json.Unmarshal(text, &p); err != nil {
		return Record{}, fmt.Errorf("history: the proof is no JSON of one: %w", err)
	}
	signed, err := openNote(p.Checkpoint, public)
	if err != nil {
		return Record{}, fmt.Errorf("history: the checkpoint of the proof: %w", err)
	}
	n, err := parseDayNote(signed)
	if err != nil {
		return Record{}, fmt.Errorf("history: the checkpoint of the proof: %w", err)
	}
	h, err := parseHolder(p.Holder)
	if err != nil {
		return Record{}, fmt.Errorf("history: the proof: %w", err)
	}
	s := span{blockKey: blockKey{p.Outside, p.First, p.Last}, allocated: p.Allocated, released: p.Released, vacant: p.Vacant}
	leaf := tlog.RecordHash(s.leafData(nil, n.group, h.commitment()))
	if p.Index < 0 || uint64(p.Index) >= n.spans || tlog.CheckRecord(tlog.RecordProof(p.Path), int64(n.spans), n.root, p.Index, leaf) != nil {
		return Record{}, fmt.Errorf("history: the record about %s is not in the file of the checkpoint: it was changed", addrrange.Address(p.Outside))
	}
	return recordOf(n.group, n.number, &s, &h, n.to)
}
