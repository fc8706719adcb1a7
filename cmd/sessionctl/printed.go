package main

import (
	"fmt"
	"io"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/width"
)

// printed receives all output. It prints octets that could act on a terminal as %HH, the way
// sessiond writes names: while sessiond is down, any user of its machine can answer at its
// address, with any text.
type printed struct {
	to io.Writer
	terminalScreen
	wide   bool   // tables have all columns
	before func() // called before each write, if set
}

// Write implements io.Writer, for whole lines.
func (p *printed) Write(text []byte) (int, error) {
	if err := p.writeClean(cleaned(text)); err != nil {
		return 0, err
	}
	return len(text), nil
}

// writeClean writes text in which all that came from elsewhere is cleaned.
func (p *printed) writeClean(text []byte) error {
	if p.before != nil {
		p.before()
	}
	_, err := p.to.Write(text)
	return err
}

// cleaned returns the text with %HH for what could act on a terminal; text itself if there is
// nothing of that.
func cleaned(text []byte) []byte {
	if harmless(text) {
		return text
	}
	clean := make([]byte, 0, 2*len(text))
	for rest := text; len(rest) > 0; {
		r, size := utf8.DecodeRune(rest)
		if r == '\n' || r == '\t' || verbatim(r, size) {
			clean = append(clean, rest[:size]...)
		} else {
			clean = appendPercent(clean, rest[:size])
		}
		rest = rest[size:]
	}
	return clean
}

// cleanCell is cleaned for one value, which has no lines.
func cleanCell(text string) string {
	if printableASCII(text) {
		return text
	}
	clean := make([]byte, 0, 2*len(text))
	for i, size := 0, 0; i < len(text); i += size {
		var r rune
		if r, size = utf8.DecodeRuneInString(text[i:]); verbatim(r, size) {
			clean = append(clean, text[i:i+size]...)
		} else {
			clean = appendPercent(clean, []byte(text[i:i+size]))
		}
	}
	return string(clean)
}

func printableASCII(text string) bool {
	for i := range len(text) {
		if text[i] < ' ' || text[i] > '~' {
			return false
		}
	}
	return true
}

func appendPercent(to, octets []byte) []byte {
	for _, octet := range octets {
		to = fmt.Appendf(to, "%%%02X", octet)
	}
	return to
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
	return unicode.IsPrint(r) && (r != utf8.RuneError || size > 1)
}

// textWidth returns the number of a terminal's columns that a clean text takes.
func textWidth(text string) int {
	n := 0
	for _, r := range text {
		n += runeWidth(r)
	}
	return n
}

func runeWidth(r rune) int {
	if r < utf8.RuneSelf {
		return 1
	}
	if unicode.In(r, unicode.Mn, unicode.Me) {
		return 0
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}
