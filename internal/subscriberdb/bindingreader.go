package subscriberdb

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
)

// valueReader reads JSON to the letter as appendBinding writes it, with octets that
// stand for themselves; what differs in anything is left to encoding/json, which takes
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

// readStamp reads a time as appendTime writes it, and reports whether it is one.
func readStamp(s string) (time.Time, bool) {
	const form = "0000-00-00T00:00:00"
	if len(s) <= len(form) || s[len(s)-1] != 'Z' {
		return time.Time{}, false
	}
	for i := range form {
		if digit := '0' <= s[i] && s[i] <= '9'; digit != (form[i] == '0') || !digit && s[i] != form[i] {
			return time.Time{}, false
		}
	}
	two := func(i int) int { return int(s[i]-'0')*10 + int(s[i+1]-'0') }
	nanos, ok := readFraction(s[len(form) : len(s)-1])
	year, month, day, hour, minute, second := two(0)*100+two(2), two(5), two(8), two(11), two(14), two(17)
	if !ok || month < 1 || month > 12 || day < 1 || day > 31 || hour > 23 || minute > 59 || second > 59 {
		return time.Time{}, false
	}
	t := time.Date(year, time.Month(month), day, hour, minute, second, nanos, time.UTC)
	return t, t.Day() == day // or the month has no such day
}

// readFraction reads the nanoseconds, "" for none.
func readFraction(s string) (int, bool) {
	if s == "" {
		return 0, true
	}
	if len(s) == 1 || len(s) > 10 || s[0] != '.' {
		return 0, false
	}
	nanos := 0
	for i := 1; i < 10; i++ {
		nanos *= 10
		if i < len(s) {
			if s[i] < '0' || s[i] > '9' {
				return 0, false
			}
			nanos += int(s[i] - '0')
		}
	}
	return nanos, true
}
