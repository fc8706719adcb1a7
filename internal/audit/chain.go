package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
)

// Head is an end of a chain: the number and hash of an entry. The zero value is the
// beginning, before the first entry.
type Head struct {
	Number uint64
	Hash   string
}

// Seal puts an entry behind the head of its trail. It returns the text to store, and the head
// after it.
func Seal(e Entry, head Head) (text string, next Head, err error) {
	e.Number, e.Before = head.Number+1, head.Hash
	e.Old, e.New = bounded(e.Old), bounded(e.New)
	raw, err := json.Marshal(&e)
	if err != nil {
		return "", Head{}, fmt.Errorf("audit entry: %w", err)
	}
	return string(raw), Head{e.Number, HashOf(string(raw))}, nil
}

// HashOf returns the hash of an entry's text: SHA-256, as hexadecimal digits.
func HashOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// FlawKind is the kind of a flaw in a chain.
type FlawKind string

// The kinds of flaws.
const (
	Changed   FlawKind = "CHANGED"   // its text is not the one that was sealed
	Missing   FlawKind = "MISSING"   // it is not there, and later ones are
	Swapped   FlawKind = "SWAPPED"   // it is not at its place
	Truncated FlawKind = "TRUNCATED" // it and all behind it are not there
)

// Flaw is the first entry of a chain that is not as it was written.
type Flaw struct {
	Number uint64
	Kind   FlawKind
	Detail string
}

// Verifier checks the entries of one trail, in their order.
type Verifier struct {
	trail string
	head  Head   // of the entry before
	first Head   // before the first entry that is kept
	flaw  *Flaw  // the first, once it is known
	maybe uint64 // the number of an entry that was not at its place; 0 for none
}

// NewVerifier returns a Verifier of a trail that begins behind first: the zero Head, or the
// last entry that retention removed.
func NewVerifier(trail string, first Head) *Verifier {
	return &Verifier{trail: trail, head: first, first: first}
}

// Checked returns the number of the last entry that is as it was written.
func (v *Verifier) Checked() uint64 { return v.head.Number }

// Check checks the next entry, and reports whether to go on: there is no flaw yet.
func (v *Verifier) Check(text, hash string) bool {
	if v.flaw != nil {
		return false
	}
	e, err := ParseEntry(text)
	want := v.head.Number + 1
	switch {
	case v.maybe != 0: // the entry before was another than the wanted one
		v.flaw = &Flaw{want, Missing, fmt.Sprintf("entry %d follows on entry %d", v.maybe, v.head.Number)}
		if err == nil && e.Number == want {
			v.flaw = &Flaw{want, Swapped, fmt.Sprintf("it stands behind entry %d", v.maybe)}
		}
	case HashOf(text) != hash:
		v.flaw = &Flaw{want, Changed, "its text does not have its hash"}
	case err != nil:
		v.flaw = &Flaw{want, Changed, err.Error()}
	case e.Trail != v.trail:
		v.flaw = &Flaw{want, Swapped, fmt.Sprintf("an entry of trail %q is in its place", e.Trail)}
	case e.Number > want:
		v.maybe = e.Number // the next one tells whether they were swapped
		return true
	case e.Number < want:
		v.flaw = &Flaw{e.Number, Swapped, fmt.Sprintf("it stands behind entry %d", v.head.Number)}
	case e.Before != v.head.Hash:
		v.flaw = v.unchained(want)
	default:
		v.head = Head{want, hash}
	}
	return v.flaw == nil
}

// unchained returns the flaw where an entry was sealed behind another one than stands before
// it.
func (v *Verifier) unchained(next uint64) *Flaw {
	if v.head == v.first {
		return &Flaw{next, Changed, "it was not sealed behind the last entry that was removed"}
	}
	return &Flaw{v.head.Number, Changed, fmt.Sprintf("entry %d was sealed behind another one", next)}
}

// End returns the first flaw, nil for none, of a trail whose end should be head. known is
// false where nothing tells the end.
func (v *Verifier) End(head Head, known bool) *Flaw {
	switch {
	case v.flaw != nil:
	case v.maybe != 0:
		v.flaw = &Flaw{v.head.Number + 1, Missing, fmt.Sprintf("entry %d follows on entry %d", v.maybe, v.head.Number)}
	case !known && v.head != v.first:
		v.flaw = &Flaw{v.head.Number + 1, Truncated, "the key that tells the last entry is gone"}
	case known && head.Number > v.head.Number:
		v.flaw = &Flaw{v.head.Number + 1, Truncated, fmt.Sprintf("the last entry should be %d", head.Number)}
	case known && head != v.head:
		v.flaw = &Flaw{v.head.Number, Changed, fmt.Sprintf("the last entry should be %d, with another hash", head.Number)}
	}
	return v.flaw
}
