package codec

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// valueReader parses JSON in exactly the form of AppendBinding, without escapes. Any other
// text is parsed by encoding/json, which takes ten times as long. A start reads a million
// bindings (BenchmarkBindingRows: 16 to 4 µs each).
type valueReader struct {
	text string // the rest
	bad  bool
}

// readBinding parses the value of the field of a binding's place, and reports whether it
// could. The binding does not refer to the text.
func readBinding(p nat.Place, text string) (nat.Binding, bool) {
	r := valueReader{text: text}
	var b nat.Binding
	b.Outside, b.First = p.Outside, p.First
	b.Inside = r.addr(`{"inside":`)
	b.Last = nat.Port(r.number(`,"last":`, 16))
	if r.skip(`,"more":[`) {
		b.Blocks = r.further(b.Blocks)
	}
	b.State = storedState(r.skip(`,"held":true`))
	b.Identity = r.octets(`,"identity":`)
	b.UserName = r.octets(`,"user_name":`)
	b.AcctSessionID = r.octets(`,"acct_session_id":`)
	b.AllocatedAt = r.stamp(`,"allocated_at":`)
	b.FirstAt = r.stamp(`,"first_allocated_at":`)
	b.GrownAt = r.stamp(`,"grown_at":`)
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

// ownTexts copies the holder's texts into one allocation, because a million may be kept.
// The User-Name is usually a part of the identity.
func ownTexts(b *nat.Holder) {
	var piece strings.Builder // concatenation does not copy if one of the strings is empty
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

// further parses the ports of further blocks to the end of their list, and returns the
// blocks with them.
func (r *valueReader) further(blocks nat.Blocks) nat.Blocks {
	for before := "["; ; before = ",[" {
		more := nat.Block{Outside: blocks.Outside, First: nat.Port(r.number(before, 16))}
		more.Last = nat.Port(r.number(",", 16))
		r.must("]")
		var ok bool
		if blocks, ok = blocks.With(more); !ok || r.bad {
			r.bad = true
			return blocks
		}
		if r.skip("]") {
			return blocks
		}
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
	c.Reason, _ = subscriber.ParseReason(r.octets(`,"reason":`)) // none for one of a later version
	if strings.HasPrefix(r.text, `,"terminate_cause":`) {
		c.Cause = uint32(r.number(`,"terminate_cause":`, 32))
	}
	r.must(`}`)
	return &c
}

// skip removes the given text from the beginning of the rest, and reports whether it was
// there.
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

// word parses a string without escapes.
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

// octets parses a field that may be absent.
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

// number parses a field with a non-negative number of at most the given bits.
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

// stamp parses a field with a time in UTC, which may be absent.
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

// InsideOfBinding returns the inside address from a value in the form of AppendBinding, or
// the unspecified address for any other text.
func InsideOfBinding(text string) netip.Addr {
	v := valueReader{text: text}
	if a := v.addr(`{"inside":`); !v.bad {
		return a
	}
	return netip.IPv6Unspecified()
}
