package codec

import (
	"encoding/json"
	"fmt"
	"unicode/utf8"
)

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
		plain[c] = standsForItself(byte(c)) || c == '/' || c == ' '
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
