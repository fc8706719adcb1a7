package codec

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
)

// valueReader reads JSON to the letter as AppendBinding writes it, with octets that
// stand for themselves; any other text is left to encoding/json, which takes
// ten times as long. A start reads a million (BenchmarkBindingRows: 16 to 4 µs each).
type valueReader struct {
	text string // the rest
	bad  bool
}

// readBinding reads the value of a binding's field, and reports whether it could. The
// binding keeps nothing of the text.
func readBinding(text string) (nat.Binding, bool) {
	r := valueReader{text: text}
	var b nat.Binding
	b.Inside = r.addr(`{"inside":`)
	b.Last = nat.Port(r.number(`,"last":`, 16))
	b.State = storedState(r.skip(`,"held":true`))
	b.Identity = r.octets(`,"identity":`)
	b.UserName = r.octets(`,"user_name":`)
	b.AcctSessionID = r.octets(`,"acct_session_id":`)
	b.AllocatedAt = r.stamp(`,"allocated_at":`)
	b.ReleasedAt = r.stamp(`,"released_at":`)
	b.HoldUntil = r.stamp(`,"hold_until":`)
	b.GraceUntil = r.stamp(`,"grace_until":`)
	if r.skip(`,"receipt":`) {
		b.Receipt = r.receipt()
	}
	if !r.skip(`}`) || r.bad || r.text != "" {
		return nat.Binding{}, false
	}
	ownTexts(&b.Holder)
	return b, true
}

// ownTexts makes the holder's texts its own, in one piece: there may be a million to keep.
// The User-Name is most often a part of the identity.
func ownTexts(b *nat.Holder) {
	var piece strings.Builder // a sum of strings would be no copy where one is empty
	piece.Grow(len(b.Identity) + len(b.AcctSessionID))
	piece.WriteString(b.Identity)
	piece.WriteString(b.AcctSessionID)
	n := len(b.Identity)
	b.Identity, b.AcctSessionID = piece.String()[:n], piece.String()[n:]
	if i := strings.LastIndex(b.Identity, b.UserName); i >= 0 {
		b.UserName = b.Identity[i : i+len(b.UserName)]
	} else {
		b.UserName = strings.Clone(b.UserName)
	}
}

func (r *valueReader) receipt() *nat.Receipt {
	var c nat.Receipt
	c.Elements = r.number(`{"elements_removed":`, 31)
	c.Deleted = r.number(`,"sessions_deleted":`, 31)
	c.Proof = nat.ParseProof(r.octets(`,"proof":`))
	c.CutAt = r.stamp(`,"cut_at":`)
	c.ReapedAt = r.stamp(`,"reaped_at":`)
	c.ReleasedAt = r.stamp(`,"released_at":`)
	r.must(`}`)
	return &c
}

// skip passes over the text, if it comes next.
func (r *valueReader) skip(text string) bool {
	rest, ok := strings.CutPrefix(r.text, text)
	r.text = rest
	return ok
}

func (r *valueReader) must(text string) {
	if !r.skip(text) {
		r.bad = true
	}
}

// word reads a string whose octets stand for themselves.
func (r *valueReader) word() string {
	r.must(`"`)
	for i := range len(r.text) {
		switch c := r.text[i]; {
		case c == '"':
			word := r.text[:i]
			r.text = r.text[i+1:]
			return word
		case c < ' ' || c > '~' || c == '\\':
			r.bad = true
			return ""
		}
	}
	r.bad = true
	return ""
}

// octets reads a field that may be absent.
func (r *valueReader) octets(name string) string {
	if !r.skip(name) {
		return ""
	}
	return r.word()
}

func (r *valueReader) addr(name string) netip.Addr {
	r.must(name)
	a, err := netip.ParseAddr(r.word())
	if err != nil {
		r.bad = true
	}
	return a
}

// number reads a field with a number that is not negative, of so many bits.
func (r *valueReader) number(name string, bits int) int {
	r.must(name)
	i := 0
	for i < len(r.text) && '0' <= r.text[i] && r.text[i] <= '9' {
		i++
	}
	n, err := strconv.ParseUint(r.text[:i], 10, bits)
	if err != nil || i > 1 && r.text[0] == '0' {
		r.bad = true
	}
	r.text = r.text[i:]
	return int(n)
}

// stamp reads a field with a time in UTC, which may be absent.
func (r *valueReader) stamp(name string) time.Time {
	if !r.skip(name) {
		return time.Time{}
	}
	word := r.word()
	t, ok := readStamp(word)
	if !ok {
		r.bad = true
	}
	return t
}

// InsideOfBinding returns the inside address of a binding's value as AppendBinding writes
// it, of any other text the unspecified address.
func InsideOfBinding(text string) netip.Addr {
	v := valueReader{text: text}
	if a := v.addr(`{"inside":`); !v.bad {
		return a
	}
	return netip.IPv6Unspecified()
}
