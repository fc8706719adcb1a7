package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/rawtext"
)

// jsonEvent is a line of JSON. Texts are raw octets as rawtext writes them.
type jsonEvent struct {
	Event            string         `json:"event"`
	At               time.Time      `json:"time"`
	Since            time.Time      `json:"since,omitzero"`
	Group            string         `json:"group"`
	Outside          netip.Addr     `json:"outside,omitzero"`
	First            nat.Port       `json:"first_port,omitempty"`
	Last             nat.Port       `json:"last_port,omitempty"`
	Inside           netip.Addr     `json:"inside,omitzero"`
	UserName         string         `json:"user_name,omitempty"`
	Client           string         `json:"client,omitempty"`
	NAS              string         `json:"nas,omitempty"`
	NASAddress       netip.Addr     `json:"nas_address,omitzero"`
	AcctSessionID    string         `json:"acct_session_id,omitempty"`
	CallingStationID string         `json:"calling_station_id,omitempty"`
	IPv6Prefixes     []netip.Prefix `json:"ipv6_prefixes,omitempty"`
	Limit            string         `json:"limit,omitempty"`
	Most             int            `json:"most,omitempty"`
}

// AppendJSON appends an event as a line of JSON, with the newline.
func AppendJSON(b []byte, e *nat.Event) ([]byte, error) {
	h := &e.Holder
	j := jsonEvent{
		Event: e.Kind.String(), At: e.At.UTC(), Group: e.Group, Outside: e.Outside, First: e.First, Last: e.Last,
		Inside: h.Inside, UserName: rawtext.Of(h.UserName), Client: rawtext.Of(h.Client), NAS: rawtext.Of(h.NAS),
		NASAddress: h.NASAddress, AcctSessionID: rawtext.Of(h.AcctSessionID), CallingStationID: rawtext.Of(h.CallingStationID),
		IPv6Prefixes: h.IPv6Prefixes, Most: e.Most,
	}
	if !e.Since.IsZero() {
		j.Since = e.Since.UTC()
	}
	if e.Kind == nat.LimitReached {
		j.Limit = e.Limit.String()
	}
	line, err := json.Marshal(&j)
	if err != nil {
		return b, fmt.Errorf("write an event of group %q as JSON: %w", e.Group, err)
	}
	return append(append(b, line...), '\n'), nil
}

// ParseJSON is the reverse of AppendJSON for one line, with or without its newline. It passes over
// fields that it does not know: a later version may have written them.
func ParseJSON(line []byte) (nat.Event, error) {
	var j jsonEvent
	d := json.NewDecoder(bytes.NewReader(line))
	if err := d.Decode(&j); err != nil {
		return nat.Event{}, fmt.Errorf("read an event: %w", err)
	}
	if d.More() {
		return nat.Event{}, errors.New("read an event: the line has more than one")
	}
	kind, ok := nat.ParseEventKind(j.Event)
	if !ok {
		return nat.Event{}, fmt.Errorf("read an event: the kind %q is unknown", j.Event)
	}
	e := nat.Event{
		Kind: kind, At: j.At.UTC(), Group: j.Group, Block: nat.Block{Outside: j.Outside, First: j.First, Last: j.Last}, Most: j.Most,
		Holder: nat.Identity{
			Inside: j.Inside, UserName: rawtext.Octets(j.UserName), Client: rawtext.Octets(j.Client), NAS: rawtext.Octets(j.NAS),
			NASAddress: j.NASAddress, AcctSessionID: rawtext.Octets(j.AcctSessionID), CallingStationID: rawtext.Octets(j.CallingStationID),
			IPv6Prefixes: j.IPv6Prefixes,
		},
	}
	if !j.Since.IsZero() {
		e.Since = j.Since.UTC()
	}
	if kind == nat.LimitReached {
		if e.Limit, ok = nat.ParseLimit(j.Limit); !ok {
			return nat.Event{}, fmt.Errorf("read an event: the limit %q is unknown", j.Limit)
		}
	}
	return e, nil
}
