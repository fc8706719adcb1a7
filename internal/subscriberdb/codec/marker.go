package codec

import (
	"encoding/json"
	"time"
)

// Marker proves that a group's data are complete. A Redis that lost its data, or is the
// wrong one, lost the marker too (I6).
type Marker struct {
	Epoch     string    `json:"epoch"` // of its own for each time the group was begun
	CreatedAt time.Time `json:"created_at"`
	Node      string    `json:"node"` // daemon that set it
}

// FormatMarker writes a marker as JSON, for people too.
func FormatMarker(m Marker) ([]byte, error) { return json.Marshal(m) }

// ParseMarker reads a marker, and reports whether it is one: another text proves nothing.
func ParseMarker(text []byte) (Marker, bool) {
	var m Marker
	if json.Unmarshal(text, &m) != nil || m.Epoch == "" {
		return Marker{}, false
	}
	return m, true
}
