package main

import (
	"fmt"
	"io"
	"unicode"
	"unicode/utf8"
)

// printed receives all output. It prints octets that could act on a terminal as %HH, the way
// sessiond writes names: while sessiond is down, any user of its machine can answer at its
// address, with any text.
type printed struct{ to io.Writer }

// Write implements io.Writer, for whole lines.
func (p printed) Write(text []byte) (int, error) {
	if harmless(text) {
		return p.to.Write(text)
	}
	clean := make([]byte, 0, 2*len(text))
	for rest := text; len(rest) > 0; {
		r, size := utf8.DecodeRune(rest)
		if verbatim(r, size) {
			clean = append(clean, rest[:size]...)
		} else {
			for _, octet := range rest[:size] {
				clean = fmt.Appendf(clean, "%%%02X", octet)
			}
		}
		rest = rest[size:]
	}
	if _, err := p.to.Write(clean); err != nil {
		return 0, err
	}
	return len(text), nil
}

// harmless reports whether the text has only printable ASCII, tabs and newlines: the usual
// case.
func harmless(text []byte) bool {
	for _, c := range text {
		if (c < ' ' || c > '~') && c != '\n' && c != '\t' {
			return false
		}
	}
	return true
}

func verbatim(r rune, size int) bool {
	return r == '\n' || r == '\t' || unicode.IsPrint(r) && (r != utf8.RuneError || size > 1)
}
