package main

import (
	"io"
	"os"

	"golang.org/x/term"
)

// terminalScreen is the terminal that a stream leads to. The zero one is none.
type terminalScreen struct {
	size     func() (columns, rows int) // nil: none
	coloured bool
}

// terminalOf returns the terminal that a stream is, if it is one. A person who sets NO_COLOR, and
// a terminal that has no colours, gets none.
func terminalOf(w io.Writer) terminalScreen {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return terminalScreen{}
	}
	name := os.Getenv("TERM")
	return terminalScreen{
		size: func() (columns, rows int) {
			columns, rows, err := term.GetSize(int(f.Fd()))
			if err != nil {
				return 0, 0
			}
			return columns, rows
		},
		coloured: os.Getenv("NO_COLOR") == "" && name != "" && name != "dumb",
	}
}

// columns returns the width of the terminal; 0 if there is none, or it does not say.
func (t terminalScreen) columns() int {
	if t.size == nil {
		return 0
	}
	columns, _ := t.size()
	return columns
}

// textStyle is how a terminal shows a text: the parameters of its escape sequence.
type textStyle string

const (
	stylePlain  textStyle = ""
	styleHead   textStyle = "1"
	styleNote   textStyle = "2"
	styleBad    textStyle = "31"
	styleGood   textStyle = "32"
	styleWaits  textStyle = "33"
	styleQuiet  textStyle = "36"
	styleSwitch           = "\x1b["
)

// appendStyled appends a clean text in a style, where the terminal has colours.
func (t terminalScreen) appendStyled(to []byte, style textStyle, text string) []byte {
	if !t.coloured || style == stylePlain {
		return append(to, text...)
	}
	to = append(append(append(to, styleSwitch...), style...), 'm')
	to = append(to, text...)
	return append(to, styleSwitch+"0m"...)
}

// styles are those of the words that tell a state. No style says what the word does not.
var styles = map[string]textStyle{
	"ACTIVE": styleGood, "CREATED": styleGood, "BOUND": styleGood, "up": styleGood, "yes": styleGood,
	"PENDING": styleWaits, "DRAINING": styleWaits, "GRACE": styleWaits, "OBSERVED": styleWaits, "LIMIT_REACHED": styleWaits,
	"CUT": styleBad, "DELETED": styleBad, "NO:": styleBad, "DOWN": styleBad, "SUSPECT:": styleBad,
	"HELD": styleQuiet, "RELEASED": styleQuiet, "REAPED": styleQuiet,
}

// styled are the titles whose values have styles: those that no subscriber can choose.
var styled = map[string]bool{"STATE": true, "KIND": true, "EVENT": true, "Ready": true, "Database": true, "State": true}

// styleOf returns the style of a value, by its first word.
func styleOf(title, value string) textStyle {
	if !styled[title] {
		return stylePlain
	}
	word := value
	for i := range value {
		if value[i] == ' ' {
			word = value[:i]
			break
		}
	}
	return styles[word]
}
