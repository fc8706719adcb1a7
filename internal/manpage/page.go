package manpage

import (
	"fmt"
	"strings"
)

// Head is the first line of a page.
type Head struct {
	Name    string // of the program or file
	Section int
	Summary string // a few words, without a full stop
	Version string
	Date    string // of the version, as 2006-01-02
}

// Page is a manual page as it is written. Text is plain: all of it is shown as it is.
type Page struct {
	text strings.Builder
	at   pagePlace
}

// pagePlace is the kind of the last thing written. It decides how a paragraph begins.
type pagePlace int

const (
	afterHeading pagePlace = iota
	afterText
	inItem
)

// New returns a page with its name.
func New(h Head) *Page {
	p := &Page{}
	fmt.Fprintf(&p.text, ".TH %s %d %q %s sessiond\n", quoted(strings.ToUpper(h.Name)), h.Section, h.Date, quoted("sessiond "+h.Version))
	p.Section("NAME")
	fmt.Fprintf(&p.text, "%s \\- %s\n", escaped(h.Name), escaped(h.Summary))
	return p
}

// Section begins a section.
func (p *Page) Section(title string) {
	fmt.Fprintf(&p.text, ".SH %s\n", quoted(title))
	p.at = afterHeading
}

// Subsection begins a part of a section.
func (p *Page) Subsection(title string) {
	fmt.Fprintf(&p.text, ".SS %s\n", quoted(title))
	p.at = afterHeading
}

// Text writes paragraphs, which empty lines separate. Lines that are indented stay as they are.
func (p *Page) Text(text string) {
	if p.at == inItem {
		p.at = afterText
	}
	p.paragraphs(text, p.at == afterText)
}

// Item writes a term of several forms, one a line, and its explanation.
func (p *Page) Item(terms []string, explanation string) {
	for i, term := range terms {
		request := ".TQ"
		if i == 0 {
			request = ".TP"
		}
		name, rest, found := strings.Cut(term, " ")
		if found {
			rest = " " + rest
		}
		fmt.Fprintf(&p.text, "%s\n\\fB%s\\fR%s\n", request, escaped(name), escaped(rest))
	}
	p.at = inItem
	p.paragraphs(explanation, false)
}

// Lines writes lines as they are.
func (p *Page) Lines(lines ...string) {
	if p.at != afterHeading {
		p.text.WriteString(".PP\n")
	}
	p.at = afterText
	p.text.WriteString(".RS 4\n.nf\n")
	for _, line := range lines {
		p.text.WriteString(lineOf(line))
	}
	p.text.WriteString(".fi\n.RE\n")
}

// String returns the page.
func (p *Page) String() string { return p.text.String() }

// paragraphs writes text, the first paragraph of which begins a new one or goes on behind a term.
func (p *Page) paragraphs(text string, begin bool) {
	verbatim := false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		indented := strings.HasPrefix(line, "  ") || strings.HasPrefix(line, "\t")
		switch {
		case strings.TrimSpace(line) == "":
			begin = true
			continue
		case begin && p.at == inItem:
			p.text.WriteString(".IP\n")
		case begin:
			p.text.WriteString(".PP\n")
		}
		if begin = false; p.at == afterHeading {
			p.at = afterText
		}
		if indented != verbatim {
			verbatim = indented
			p.text.WriteString(map[bool]string{true: ".nf\n", false: ".fi\n"}[verbatim])
		}
		p.text.WriteString(lineOf(line))
	}
	if verbatim {
		p.text.WriteString(".fi\n")
	}
}

// lineOf writes a line of text, which is no request whatever it begins with.
func lineOf(line string) string {
	text := escaped(line)
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, `\(aq`) {
		text = `\&` + text
	}
	return text + "\n"
}

var escapes = strings.NewReplacer(
	`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`, "\t", "    ",
)

func escaped(text string) string { return escapes.Replace(text) }

// quoted is an argument of a request.
func quoted(text string) string {
	return `"` + strings.ReplaceAll(escaped(text), `"`, `\(dq`) + `"`
}
