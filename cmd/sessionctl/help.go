package main

import (
	"bytes"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// helpWidth is the width of the help: that of a small terminal.
const helpWidth = 80

// narrowHelp makes the help of all commands fit its width: cobra's own breaks no line.
func narrowHelp(root *cobra.Command) {
	print := root.HelpFunc()
	root.SetHelpFunc(func(c *cobra.Command, given []string) {
		var page bytes.Buffer
		out := c.OutOrStdout()
		c.SetOut(&page)
		print(c, given)
		c.SetOut(nil)
		_, _ = io.WriteString(out, narrow(page.String()))
	})
}

// narrow breaks the long lines of a help page. The rest of one stands below the text of its
// beginning, such as the explanation of a command.
func narrow(page string) string {
	var b strings.Builder
	for line := range strings.Lines(page) {
		line = strings.TrimRight(line, "\n")
		begin := textColumnOf(line)
		indent, end := begin, ""
		if strings.HasPrefix(line, "  sessionctl ") { // a command, as a shell reads it
			indent, end = begin+4, ` \`
		}
		b.WriteString(line[:begin])
		parts := brokenLines(line[begin:], helpWidth-indent-len(end))
		b.WriteString(strings.Join(parts, end+"\n"+strings.Repeat(" ", indent)) + "\n")
	}
	return b.String()
}

func leading(line string) string { return line[:len(line)-len(strings.TrimLeft(line, " "))] }

// textColumnOf returns the column where the text of a line begins: behind the name and the gap
// of a list, or behind the space at its beginning.
func textColumnOf(line string) int {
	indent := len(leading(line))
	name, rest, found := strings.Cut(line[indent:], "  ")
	if !found || indent == 0 {
		return indent
	}
	return indent + len(name) + 2 + len(leading(rest))
}
