package codec

import (
	"encoding/json"
	"time"
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
