package codec

import (
	"encoding/json"
	"net/netip"
	"slices"
	"time"

	"github.com/sessiond/sessiond/internal/guard"
)

// Marker proves that a group's data are complete. A Redis that lost its data, or another
// Redis, has no marker or another one (I6).
type Marker struct {
	Epoch     string    `json:"epoch"` // a new value each time the group starts without data
	CreatedAt time.Time `json:"created_at"`
	Node      string    `json:"node"` // daemon that set it
}

// FormatMarker returns a marker as JSON, which operators can read too.
func FormatMarker(m Marker) ([]byte, error) { return json.Marshal(m) }

// ParseMarker parses a marker, and reports whether the text is one: any other text proves
// nothing.
func ParseMarker(text []byte) (Marker, bool) {
	var m Marker
	if json.Unmarshal(text, &m) != nil || m.Epoch == "" {
		return Marker{}, false
	}
	return m, true
}

// Served is the configuration that a group's NAT was last served with. A later start
// compares it with its configuration to find the parts to drain.
type Served struct {
	Group string
	By    string // the daemon that serves it: node, namespace and table

	Inside, Outside     []netip.Prefix // drained ones included
	Draining            []netip.Prefix // the prefixes of these that are no longer configured
	FirstPort, LastPort uint16
	BlockSize           int
	Hold, Grace         time.Duration
	GraceCauses         []uint32
	MaxBlocks           int

	Terms // the settings that the kernel has

	RecordTTL time.Duration // of the group
	Guard     guard.Limits  // of the group
}

// servedValue is the value of the key: JSON, which operators can read too.
type servedValue struct {
	By          string         `json:"by"`
	Inside      []netip.Prefix `json:"inside"`
	Outside     []netip.Prefix `json:"outside"`
	Draining    []netip.Prefix `json:"draining,omitempty"`
	FirstPort   uint16         `json:"first_port"`
	LastPort    uint16         `json:"last_port"`
	BlockSize   int            `json:"block_size"`
	Hold        timeSpan       `json:"hold"`
	Grace       timeSpan       `json:"grace,omitzero"`
	GraceCauses []uint32       `json:"grace_causes,omitempty"`
	MaxBlocks   int            `json:"max_blocks,omitzero"`
	Terms       termsValue     `json:"terms,omitzero"`
	RecordTTL   timeSpan       `json:"record_ttl"`
	Guard       guardValue     `json:"guard"`
}

type guardValue struct {
	Minimum    int      `json:"minimum"`
	Removed    float64  `json:"removed"`
	Expired    float64  `json:"expired"`
	NASRestart float64  `json:"nas_restart"`
	Window     timeSpan `json:"window"`
}

// timeSpan is a duration with a readable text, such as 2m0s.
type timeSpan time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d timeSpan) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *timeSpan) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	*d = timeSpan(parsed)
	return err
}

// FormatServed returns the value of a group's ServedKey.
func FormatServed(s *Served) ([]byte, error) {
	return json.Marshal(servedValue{
		By: s.By, Inside: s.Inside, Outside: s.Outside, Draining: s.Draining,
		FirstPort: s.FirstPort, LastPort: s.LastPort, BlockSize: s.BlockSize,
		Hold: timeSpan(s.Hold), Grace: timeSpan(s.Grace), GraceCauses: s.GraceCauses, MaxBlocks: s.MaxBlocks,
		Terms: formatTerms(&s.Terms), RecordTTL: timeSpan(s.RecordTTL),
		Guard: guardValue{s.Guard.Minimum, s.Guard.Removed, s.Guard.Expired, s.Guard.NASRestart, timeSpan(s.Guard.Window)},
	})
}

// ParseServed parses the value of a group's ServedKey.
func ParseServed(group string, text []byte) (Served, error) {
	var v servedValue
	if err := json.Unmarshal(text, &v); err != nil {
		return Served{}, err
	}
	prefixes := slices.Concat(v.Inside, v.Outside, v.Draining)
	for _, n := range v.Terms.NoNAT {
		prefixes = append(prefixes, n.Remote)
	}
	if err := checkPrefixes(prefixes...); err != nil {
		return Served{}, err
	}
	return v.served(group), nil
}

func (v *servedValue) served(group string) Served {
	return Served{
		Group: group, By: v.By, Inside: v.Inside, Outside: v.Outside, Draining: v.Draining,
		FirstPort: v.FirstPort, LastPort: v.LastPort, BlockSize: v.BlockSize,
		Hold: time.Duration(v.Hold), Grace: time.Duration(v.Grace), GraceCauses: v.GraceCauses, MaxBlocks: v.MaxBlocks, Terms: v.Terms.terms(),
		RecordTTL: time.Duration(v.RecordTTL),
		Guard: guard.Limits{
			Minimum: v.Guard.Minimum, Removed: v.Guard.Removed, Expired: v.Guard.Expired,
			NASRestart: v.Guard.NASRestart, Window: time.Duration(v.Guard.Window),
		},
	}
}
