package codec

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// BindingParts is the number of hashes for the bindings of a group; the last octet of the
// outside address selects the hash. A million bindings are some 31,000 in each, 9 MB, for
// any size of blocks. More hashes would be smaller, but a write needs a command for each
// hash that it touches: 256 cost accounting some 4 % of its rate.
const BindingParts = 32

// BindingPart returns the part for the bindings of an outside address.
func BindingPart(outside netip.Addr) uint8 {
	octets := outside.As16()
	return octets[15] % BindingParts
}

// FormatPlace returns the field of a binding in its hash: its outside address and first
// port.
func FormatPlace(p nat.Place) string { return string(AppendPlace(nil, p)) }

// AppendPlace appends the result of FormatPlace.
func AppendPlace(text []byte, p nat.Place) []byte {
	return strconv.AppendUint(append(p.Outside.AppendTo(text), ':'), uint64(p.First), 10)
}

// ParsePlace parses the result of FormatPlace.
func ParsePlace(field string) (nat.Place, error) {
	i := strings.LastIndexByte(field, ':')
	if i < 0 {
		return nat.Place{}, fmt.Errorf("block %q: no port", field)
	}
	outside, err := netip.ParseAddr(field[:i])
	if err != nil {
		return nat.Place{}, fmt.Errorf("block %q: %w", field, err)
	}
	first, err := strconv.ParseUint(field[i+1:], 10, 16)
	if err != nil {
		return nat.Place{}, fmt.Errorf("block %q: %w", field, err)
	}
	return nat.Place{Outside: outside, First: nat.Port(first)}, nil
}

// bindingValue is the value of a binding's field: JSON, which operators can read too.
type bindingValue struct {
	Inside        netip.Addr    `json:"inside"`
	Last          nat.Port      `json:"last"`
	More          [][2]nat.Port `json:"more,omitempty"` // first and last port of each further block, the newest one last
	Held          bool          `json:"held,omitempty"`
	Identity      octets        `json:"identity,omitzero"`
	UserName      octets        `json:"user_name,omitzero"`
	AcctSessionID octets        `json:"acct_session_id,omitzero"`
	AllocatedAt   time.Time     `json:"allocated_at,omitzero"`
	FirstAt       time.Time     `json:"first_allocated_at,omitzero"`
	GrownAt       time.Time     `json:"grown_at,omitzero"`
	ReleasedAt    time.Time     `json:"released_at,omitzero"`
	HoldUntil     time.Time     `json:"hold_until,omitzero"`
	GraceUntil    time.Time     `json:"grace_until,omitzero"`
	Receipt       *receiptValue `json:"receipt,omitempty"`
}

// receiptValue is the receipt within a bindingValue.
type receiptValue struct {
	Elements   int       `json:"elements_removed"`
	Deleted    int       `json:"sessions_deleted"`
	Proof      string    `json:"proof,omitempty"` // "index" or "table"
	CutAt      time.Time `json:"cut_at,omitzero"`
	ReapedAt   time.Time `json:"reaped_at,omitzero"`
	ReleasedAt time.Time `json:"released_at,omitzero"`
	Reason     string    `json:"reason,omitempty"`
	Cause      uint32    `json:"terminate_cause,omitempty"`
}

func (v *bindingValue) binding(group string, p nat.Place) (nat.Binding, error) {
	b := nat.Binding{
		Group: group, Blocks: nat.Blocks{Block: nat.Block{Outside: p.Outside, First: p.First, Last: v.Last}}, State: storedState(v.Held),
		Holder:      nat.Holder{Inside: v.Inside, Identity: string(v.Identity), UserName: string(v.UserName), AcctSessionID: string(v.AcctSessionID)},
		AllocatedAt: v.AllocatedAt, FirstAt: v.FirstAt, GrownAt: v.GrownAt, ReleasedAt: v.ReleasedAt, HoldUntil: v.HoldUntil, GraceUntil: v.GraceUntil,
	}
	for _, more := range v.More {
		var ok bool
		if b.Blocks, ok = b.With(nat.Block{Outside: p.Outside, First: more[0], Last: more[1]}); !ok {
			return b, fmt.Errorf("further block %d-%d is empty, or has a port of another one", more[0], more[1])
		}
	}
	if r := v.Receipt; r != nil {
		b.Receipt = &nat.Receipt{
			Elements: r.Elements, Deleted: r.Deleted, Proof: nat.ParseProof(r.Proof),
			CutAt: r.CutAt, ReapedAt: r.ReapedAt, ReleasedAt: r.ReleasedAt,
		}
		b.Receipt.Reason, _ = subscriber.ParseReason(r.Reason) // none for one of a later version
		b.Receipt.Cause = r.Cause
	}
	return b, nil
}

// storedState returns the state of a stored binding: held or active. The finer states are
// read from the kernel.
func storedState(held bool) nat.State {
	if held {
		return nat.Held
	}
	return nat.Active
}

// ParseBinding parses a field of a hash of bindings and its value.
func ParseBinding(group, field, text string) (nat.Binding, error) {
	place, err := ParsePlace(field)
	if err != nil {
		return nat.Binding{}, err
	}
	if b, ok := readBinding(place, text); ok {
		b.Group = group
		return b, nil
	}
	var v bindingValue
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		return nat.Binding{}, fmt.Errorf("binding %s: %w", field, err)
	}
	b, err := v.binding(group, place)
	if err != nil {
		return nat.Binding{}, fmt.Errorf("binding %s: %w", field, err)
	}
	return b, nil
}

// AppendBinding appends the value of the binding's field in the form in which encoding/json
// would write a bindingValue. It is written by hand because each change of a binding needs
// it.
func AppendBinding(text []byte, b *nat.Binding) []byte {
	text = append(b.Inside.AppendTo(append(text, `{"inside":"`...)), `","last":`...)
	text = strconv.AppendUint(text, uint64(b.Last), 10)
	if b.Len() > 1 {
		text = appendFurther(text, b.Blocks)
	}
	if b.State == nat.Held {
		text = append(text, `,"held":true`...)
	}
	text = appendOctets(text, `,"identity":`, b.Identity)
	text = appendOctets(text, `,"user_name":`, b.UserName)
	text = appendOctets(text, `,"acct_session_id":`, b.AcctSessionID)
	text = appendStamp(text, `,"allocated_at":`, b.AllocatedAt)
	text = appendStamp(text, `,"first_allocated_at":`, b.FirstAt)
	text = appendStamp(text, `,"grown_at":`, b.GrownAt)
	text = appendStamp(text, `,"released_at":`, b.ReleasedAt)
	text = appendStamp(text, `,"hold_until":`, b.HoldUntil)
	text = appendStamp(text, `,"grace_until":`, b.GraceUntil)
	if b.Receipt != nil {
		text = appendReceipt(append(text, `,"receipt":`...), b.Receipt)
	}
	return append(text, '}')
}

// appendFurther appends the field with the ports of all blocks but the first.
func appendFurther(text []byte, b nat.Blocks) []byte {
	text = append(text, `,"more":`...)
	before := byte('[')
	for x := range b.All() {
		if x == b.Block {
			continue
		}
		text = strconv.AppendUint(append(text, before, '['), uint64(x.First), 10)
		text = append(strconv.AppendUint(append(text, ','), uint64(x.Last), 10), ']')
		before = ','
	}
	return append(text, ']')
}

func appendReceipt(text []byte, r *nat.Receipt) []byte {
	text = strconv.AppendInt(append(text, `{"elements_removed":`...), int64(r.Elements), 10)
	text = strconv.AppendInt(append(text, `,"sessions_deleted":`...), int64(r.Deleted), 10)
	if proof := r.Proof.String(); proof != "" {
		text = append(append(append(text, `,"proof":"`...), proof...), '"')
	}
	text = appendStamp(text, `,"cut_at":`, r.CutAt)
	text = appendStamp(text, `,"reaped_at":`, r.ReapedAt)
	text = appendStamp(text, `,"released_at":`, r.ReleasedAt)
	if reason := r.Reason.String(); reason != "" {
		text = append(append(append(text, `,"reason":"`...), reason...), '"')
	}
	if r.Cause != 0 {
		text = strconv.AppendUint(append(text, `,"terminate_cause":`...), uint64(r.Cause), 10)
	}
	return append(text, '}')
}

// appendStamp appends a field with a time, nothing for the zero time.
func appendStamp(text []byte, name string, t time.Time) []byte {
	if t.IsZero() {
		return text
	}
	return append(appendTime(append(append(text, name...), '"'), t), '"')
}

// octets holds raw octets from a NAS for JSON (ACCT-23): a string if they are valid UTF-8,
// else {"base64": ...}, because JSON strings cannot hold other bytes.
type octets string

type rawOctets struct {
	Base64 []byte `json:"base64"`
}

// MarshalJSON implements json.Marshaler.
func (o octets) MarshalJSON() ([]byte, error) {
	if utf8.ValidString(string(o)) {
		return json.Marshal(string(o))
	}
	return json.Marshal(rawOctets{[]byte(o)})
}

// UnmarshalJSON implements json.Unmarshaler.
func (o *octets) UnmarshalJSON(text []byte) error {
	var s string
	if json.Unmarshal(text, &s) == nil {
		*o = octets(s)
		return nil
	}
	var raw rawOctets
	if err := json.Unmarshal(text, &raw); err != nil {
		return fmt.Errorf("octets: %w", err)
	}
	*o = octets(raw.Base64)
	return nil
}

// plainInJSON has the usual octets that a JSON string holds without escapes.
var plainInJSON = func() (plain [256]bool) {
	for c := range plain {
		plain[c] = plainInWord[c] || c == '/' || c == ' '
	}
	return plain
}()

// appendOctets appends a field with octets, nothing for no octets.
func appendOctets(text []byte, name, raw string) []byte {
	if raw == "" {
		return text
	}
	text = append(text, name...)
	for i := range len(raw) {
		if !plainInJSON[raw[i]] {
			value, _ := json.Marshal(octets(raw)) // cannot fail for a string
			return append(text, value...)
		}
	}
	return append(append(append(text, '"'), raw...), '"')
}
