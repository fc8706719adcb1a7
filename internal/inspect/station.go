package inspect

import "strings"

// A Station is a Calling-Station-Id to search for.
type Station struct {
	text string // as it was asked for
	mac  string // twelve lower-case hexadecimal digits, if it is a MAC address; "" if not
}

// NewStation returns the Station of a text: of a MAC address in any notation, all notations of
// that address.
func NewStation(text string) Station {
	mac, rest := cutMAC(text)
	if rest != "" {
		mac = ""
	}
	return Station{text: text, mac: mac}
}

// Matches reports whether a Calling-Station-Id is the one that is searched for. A MAC address
// may be followed by more, such as ":SSID" (RFC 3580 section 3.21).
func (s Station) Matches(id string) bool {
	if s == (Station{}) || s.text == id {
		return true
	}
	if s.mac == "" {
		return false
	}
	mac, _ := cutMAC(id)
	return mac == s.mac
}

// macDigits is the number of hexadecimal digits of a MAC address.
const macDigits = 12

// cutMAC reads a MAC address at the beginning of a text, as 02-00-5E-00-00-07, 02:00:5e:00:00:07,
// 0200.5e00.0007, 02005e000007 and the like. It returns the digits in lower case, and the rest;
// no digits if there is none.
func cutMAC(text string) (digits, rest string) {
	var found [macDigits]byte
	n := 0
	for i := range len(text) {
		c := text[i]
		switch {
		case n > 0 && n%2 == 0 && strings.IndexByte(":-. ", c) >= 0:
			continue
		case 'A' <= c && c <= 'F':
			c += 'a' - 'A'
		case '0' <= c && c <= '9', 'a' <= c && c <= 'f':
		default:
			return "", text
		}
		found[n] = c
		if n++; n == macDigits {
			rest = text[i+1:]
			if rest != "" && strings.IndexByte(":-. ", rest[0]) < 0 {
				return "", text // a longer number
			}
			return string(found[:]), rest
		}
	}
	return "", text
}
