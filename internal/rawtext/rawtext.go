// Package rawtext writes raw RADIUS octets as text that is safe on a terminal, in a log and on a
// page, and reads such text. gRPC, sessionctl and the console show the same text, so that each
// takes the text of another.
package rawtext

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

const upperHex = "0123456789ABCDEF"

// Of writes octets as valid UTF-8: unprintable octets become %HH, and a "%" before two
// hexadecimal digits becomes %25. Octets is the reverse.
func Of(octets string) string {
	if plain(octets) {
		return octets
	}
	var b strings.Builder
	for i := 0; i < len(octets); {
		r, size := utf8.DecodeRuneInString(octets[i:])
		if verbatim(r, size) && !escaped(octets[i:]) {
			b.WriteString(octets[i : i+size])
		} else {
			writeHex(&b, octets[i:i+size])
		}
		i += size
	}
	return b.String()
}

// Octets is the reverse of Of.
func Octets(text string) string {
	if !strings.Contains(text, "%") {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(text); {
		if escaped(text[i:]) {
			b.WriteByte(nibble(text[i+1])<<4 | nibble(text[i+2]))
			i += 3
			continue
		}
		b.WriteByte(text[i])
		i++
	}
	return b.String()
}

// simple reports whether the text is printable ASCII without "%", which is the
// common case.
func simple(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '%' {
			return false
		}
	}
	return true
}

func plain(s string) bool {
	if simple(s) {
		return true
	}
	for i, r := range s {
		if r == utf8.RuneError || !unicode.IsPrint(r) || escaped(s[i:]) {
			return false
		}
	}
	return true
}

// verbatim reports whether a decoded rune needs no escape. A decoding error has
// the size 1, a genuine U+FFFD the size 3.
func verbatim(r rune, size int) bool {
	return unicode.IsPrint(r) && (r != utf8.RuneError || size > 1)
}

// escaped reports whether s begins with an escape, "%" and two hexadecimal
// digits.
func escaped(s string) bool {
	return len(s) >= 3 && s[0] == '%' && isHex(s[1]) && isHex(s[2])
}

func writeHex(b *strings.Builder, octets string) {
	for i := range len(octets) {
		b.WriteByte('%')
		b.WriteByte(upperHex[octets[i]>>4])
		b.WriteByte(upperHex[octets[i]&0x0f])
	}
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'A' <= c && c <= 'F' || 'a' <= c && c <= 'f'
}

func nibble(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c <= 'F':
		return c - 'A' + 10
	default:
		return c - 'a' + 10
	}
}
