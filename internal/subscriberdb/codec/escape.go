package codec

import (
	"fmt"
	"strings"
)

const hexDigits = "0123456789ABCDEF"

// Escape returns raw octets (ACCT-23) as one readable word: letters, digits and a few other
// characters are unchanged, all other octets become %XX.
func Escape(raw string) string {
	plain := true
	for i := 0; i < len(raw) && plain; i++ {
		plain = standsForItself(raw[i])
	}
	if plain {
		return raw
	}
	var b strings.Builder
	b.Grow(len(raw) + 16)
	for i := 0; i < len(raw); i++ {
		if c := raw[i]; standsForItself(c) {
			b.WriteByte(c)
		} else {
			b.Write([]byte{'%', hexDigits[c>>4], hexDigits[c&15]})
		}
	}
	return b.String()
}

func standsForItself(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		strings.IndexByte("._-@:+=", c) >= 0
}

// unescape parses the result of Escape.
func unescape(word string) (string, error) {
	if strings.IndexByte(word, '%') < 0 {
		return word, nil
	}
	raw := make([]byte, 0, len(word))
	for i := 0; i < len(word); i++ {
		if word[i] != '%' {
			raw = append(raw, word[i])
			continue
		}
		if i+2 >= len(word) {
			return "", fmt.Errorf("cut escape in %q", word)
		}
		hi, lo := strings.IndexByte(hexDigits, word[i+1]), strings.IndexByte(hexDigits, word[i+2])
		if hi < 0 || lo < 0 {
			return "", fmt.Errorf("bad escape in %q", word)
		}
		raw = append(raw, byte(hi<<4|lo))
		i += 2
	}
	return string(raw), nil
}

// escapedLen returns the length of the result of Escape.
func escapedLen(raw string) int {
	n := len(raw)
	for i := 0; i < len(raw); i++ {
		if !standsForItself(raw[i]) {
			n += 2
		}
	}
	return n
}
