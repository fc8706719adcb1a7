package subscriberdb

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"time"
)

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
	GraceUntil    time.Time  `json:"grace_until,omitzero"`
	Receipt       *Receipt   `json:"receipt,omitempty"`
}

func (v *bindingValue) binding(group string, k Block) Binding {
	return Binding{
		group, v.Inside, k.Outside, k.First, v.Last, v.Held,
		string(v.Identity), string(v.UserName), string(v.AcctSessionID),
		v.AllocatedAt, v.ReleasedAt, v.HoldUntil, v.GraceUntil, v.Receipt,
	}
}

func parseBinding(group, field, text string) (Binding, error) {
	block, err := parseBlock(field)
	if err != nil {
		return Binding{}, err
	}
	if b, ok := readBinding(text); ok {
		b.Group, b.Outside, b.First = group, block.Outside, block.First
		return b, nil
	}
	var v bindingValue
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		return Binding{}, fmt.Errorf("binding %s: %w", field, err)
	}
	return v.binding(group, block), nil
}

// appendValue writes the value of the binding's field, as encoding/json would
// write a bindingValue. Each change of a binding writes it, so it is dear enough to
// do by hand.
func (b *Binding) appendValue(text []byte) []byte {
	text = append(b.Inside.AppendTo(append(text, `{"inside":"`...)), `","last":`...)
	text = strconv.AppendUint(text, uint64(b.Last), 10)
	if b.Held {
		text = append(text, `,"held":true`...)
	}
	text = appendOctets(text, `,"identity":`, b.Identity)
	text = appendOctets(text, `,"user_name":`, b.UserName)
	text = appendOctets(text, `,"acct_session_id":`, b.AcctSessionID)
	text = appendStamp(text, `,"allocated_at":`, b.AllocatedAt)
	text = appendStamp(text, `,"released_at":`, b.ReleasedAt)
	text = appendStamp(text, `,"hold_until":`, b.HoldUntil)
	text = appendStamp(text, `,"grace_until":`, b.GraceUntil)
	if b.Receipt != nil {
		text = b.Receipt.appendValue(append(text, `,"receipt":`...))
	}
	return append(text, '}')
}

func (r *Receipt) appendValue(text []byte) []byte {
	text = strconv.AppendInt(append(text, `{"elements_removed":`...), int64(r.Elements), 10)
	text = strconv.AppendInt(append(text, `,"sessions_deleted":`...), int64(r.Deleted), 10)
	if r.Proof != "" {
		text = append(append(append(text, `,"proof":"`...), r.Proof...), '"') // a word of ours
	}
	text = appendStamp(text, `,"cut_at":`, r.CutAt)
	text = appendStamp(text, `,"reaped_at":`, r.ReapedAt)
	text = appendStamp(text, `,"released_at":`, r.ReleasedAt)
	return append(text, '}')
}

// appendStamp writes a field with a time, none for the zero time.
func appendStamp(text []byte, name string, t time.Time) []byte {
	if t.IsZero() {
		return text
	}
	return append(appendTime(append(append(text, name...), '"'), t), '"')
}
